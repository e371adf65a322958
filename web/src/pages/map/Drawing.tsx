// The map drawn: primaries on the left, standbys on the right, a line for each pair. The table below it says the same in words.
import type { Mirror } from "./Map";
import { states } from "./Map";
import { count } from "../../parts/words";

/** More lines than these are no picture; the table has all. */
const DRAWN = 40;
const WIDTH = 720;
const BOX = 170;
const ROW = 56;

/** A line has the colour of the worst that any of its mailboxes is in. */
const WORST: [string, string][] = [
  ["faulted", "bad"], ["held", "wait"], ["on_standby", "wait"], ["paused", "wait"], ["switching_over", "busy"], ["switching_back", "busy"], ["seeding", "busy"],
];

export function tone(mirror: Mirror): string {
  const there = new Set<string>(states(mirror).map(([state]) => state));
  return WORST.find(([state]) => there.has(state))?.[1] ?? "good";
}

export function Drawing({ mirrors }: { mirrors: Mirror[] }) {
  const drawn = mirrors.slice(0, DRAWN);
  const primaries = [...new Set(drawn.map((mirror) => mirror.primary))];
  const standbys = [...new Set(drawn.map((mirror) => mirror.standby))];
  const rows = Math.max(primaries.length, standbys.length);
  const height = rows * ROW + 12;
  const y = (index: number, of: number) => 6 + (height - 12) * ((index + 0.5) / of);
  const label = `${count(primaries.length)} ${primaries.length === 1 ? "primary" : "primaries"} on the left, ${count(standbys.length)} ${standbys.length === 1 ? "standby" : "standbys"} on the right; the table below says the same`;
  return (
    <figure className="card" style={{ margin: 0 }}>
      <svg viewBox={`0 0 ${WIDTH} ${height}`} role="img" aria-label={label} className="map">
        {drawn.map((mirror) => {
          const from = y(primaries.indexOf(mirror.primary), primaries.length);
          const to = y(standbys.indexOf(mirror.standby), standbys.length);
          const middle = (from + to) / 2;
          return (
            <g key={`${mirror.primary} ${mirror.standby}`} className={tone(mirror)}>
              <line x1={BOX} y1={from} x2={WIDTH - BOX} y2={to} strokeWidth={1.5 + Math.min(4, Math.log10(mirror.mailboxes + 1))} strokeDasharray={mirror.lagging > 0 ? "7 5" : undefined} />
              <text x={WIDTH / 2} y={middle - 7} textAnchor="middle">
                {mirror.on_standby > 0 ? (mirror.outbound > 0 ? "⇄ " : "← ") : "→ "}{count(mirror.mailboxes)}
              </text>
            </g>
          );
        })}
        {primaries.map((name, index) => <Box key={name} name={name} x={1} y={y(index, primaries.length)} />)}
        {standbys.map((name, index) => <Box key={name} name={name} x={WIDTH - BOX - 1} y={y(index, standbys.length)} />)}
      </svg>
      <figcaption className="quiet small">
        → changes flow to the standby; ← the users work on the standby. A broken line is behind. The colour is that of the worst state among its mailboxes.
        {mirrors.length > DRAWN && ` The first ${DRAWN} are drawn.`}
      </figcaption>
    </figure>
  );
}

function Box({ name, x, y }: { name: string; x: number; y: number }) {
  const shown = name.length > 20 ? `${name.slice(0, 19)}…` : name;
  return (
    <g className="server">
      <rect x={x} y={y - 17} width={BOX} height={34} rx={6} />
      <text x={x + BOX / 2} y={y + 5} textAnchor="middle">{shown}</text>
    </g>
  );
}

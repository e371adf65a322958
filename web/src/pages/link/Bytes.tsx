// What went over the wire, by kind and direction, in all and just now; and what that was of the messages themselves.
import type { Schema } from "../../api/client";
import { Card, Facts } from "../../parts/Page";
import { bytes as shown, duration } from "../../parts/words";
import { nameOf } from "./pace";
import { type Overview, usePace } from "./questions";

const KINDS: [string, string][] = [
  ["live", "Changes as they happen"],
  ["seed", "First copies"],
  ["check", "Verifying"],
  ["control", "Heartbeats and reports"],
  ["overhead", "Encryption and framing"],
];

export function Bytes({ bytes, traffic }: { bytes: Overview["bytes"]; traffic?: Schema["Traffic"] }) {
  const paced = usePace(bytes);
  const ever = new Map(bytes.map((row) => [nameOf(row), row.bytes]));
  const sum = (direction: string) => bytes.filter((row) => row.direction === direction).reduce((all, row) => all + row.bytes, 0);
  const rate = (direction: string) => KINDS.reduce((all, [kind]) => all + (paced?.rates[nameOf({ direction, kind })] ?? 0), 0);
  const cell = (value: number | undefined) => <td className="right number nowrap">{value === undefined ? "–" : shown(value)}</td>;
  const now = (value: number | undefined) => <td className="right number nowrap">{paced && value !== undefined ? `${shown(value)}/s` : "–"}</td>;
  return (
    <div className="columns">
      <Card title="Bytes on the wire">
        <div className="scroll" tabIndex={0} role="region" aria-label="Bytes by kind and direction">
          <table className="plain">
            <thead><tr><th scope="col">What for</th><th scope="col" className="right">To here</th><th scope="col" className="right">Now</th><th scope="col" className="right">Back</th></tr></thead>
            <tbody>
              {KINDS.map(([kind, name]) => (
                <tr key={kind}>
                  <th scope="row" style={{ whiteSpace: "normal" }}>{name}</th>
                  {cell(ever.get(nameOf({ direction: "out", kind })))}
                  {now(paced?.rates[nameOf({ direction: "out", kind })])}
                  {cell(ever.get(nameOf({ direction: "in", kind })))}
                </tr>
              ))}
              <tr><th scope="row">Together</th>{cell(bytes.length > 0 ? sum("out") : undefined)}{now(bytes.length > 0 ? rate("out") : undefined)}{cell(bytes.length > 0 ? sum("in") : undefined)}</tr>
            </tbody>
          </table>
        </div>
        <p className="quiet small">
          Counted by the source gateway since the sites were first connected, and reported here within seconds while mail crosses, once a minute otherwise.{" "}
          {paced ? `Now: over the last ${duration(paced.seconds)} that were reported.` : "Now stands here once there were two reports since this screen was opened."}
        </p>
      </Card>
      {traffic && (
        <Card title="What the messages came to">
          <Facts facts={[
            ["Messages, as servers hold them", shown(traffic.message_bytes)],
            ["Crossed the link", shown(traffic.new_bytes)],
            ["Were there already", shown(traffic.deduplicated_bytes)],
            ["Saved by unwrapping and compression", shown(traffic.compressed_bytes)],
          ]} />
          <p className="quiet small">An attachment crosses once, whoever gets it. For one mailbox: <code>understudy mailbox show ADDRESS</code>.</p>
        </Card>
      )}
    </div>
  );
}

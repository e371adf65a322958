// One line over time, drawn to fill its place, with its newest value in words.
import { At } from "./Ago";

interface ChartProps {
  label: string;
  /** Milliseconds since the epoch and a value; null where none is known. */
  points: [number, number | null][];
  format: (value: number) => string;
}

const WIDTH = 600;
const HEIGHT = 120;

/** The least of 1, 2, 5 times a power of ten that is not below `value`. */
export function ceiling(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((bound) => bound >= value * 0.999) ?? 10 * power;
}

export function Chart({ label, points, format }: ChartProps) {
  const known = points.filter((point): point is [number, number] => point[1] !== null);
  const begin = points[0]?.[0] ?? 0;
  const end = points.at(-1)?.[0] ?? 0;
  if (known.length < 2) return <p className="quiet">The line begins with the next measurement, in a few seconds.</p>;
  const top = ceiling(Math.max(...known.map(([, value]) => value)));
  const x = (time: number) => ((time - begin) / Math.max(1, end - begin)) * WIDTH;
  const y = (value: number) => HEIGHT - (value / top) * (HEIGHT - 2) - 1;
  const pieces: [number, number][][] = [[]];
  for (const [time, value] of points) {
    if (value === null) pieces.push([]);
    else pieces.at(-1)?.push([time, value]);
  }
  const path = (piece: [number, number][]) => piece.map(([time, value], index) => `${index === 0 ? "M" : "L"}${x(time).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const newest = known.at(-1)?.[1] ?? 0;
  const highest = Math.max(...known.map(([, value]) => value));
  return (
    <figure className="chart-frame" style={{ margin: 0 }}>
      <div className="ys" aria-hidden="true"><span>{format(top)}</span><span>{format(0)}</span></div>
      <svg className="chart" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img"
        aria-label={`${label}: now ${format(newest)}, at most ${format(highest)} since this began`}>
        {[0.5, HEIGHT / 2, HEIGHT - 0.5].map((line) => <line key={line} className="axis" x1="0" x2={WIDTH} y1={line} y2={line} vectorEffect="non-scaling-stroke" />)}
        {pieces.filter((piece) => piece.length > 1).map((piece) => {
          const [from, to] = [piece[0]?.[0] ?? 0, piece.at(-1)?.[0] ?? 0];
          return (
            <g key={from}>
              <path className="area" d={`${path(piece)}L${x(to).toFixed(1)} ${HEIGHT}L${x(from).toFixed(1)} ${HEIGHT}Z`} />
              <path className="line" d={path(piece)} />
            </g>
          );
        })}
      </svg>
      <div className="xs"><At time={new Date(begin).toISOString()} /><span>now</span></div>
    </figure>
  );
}

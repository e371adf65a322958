// What a program said, whatever it is: objects as facts, lists of objects as tables. Used where no screen knows better.
import { Facts } from "./Page";
import { Say } from "./Say";
import { title } from "./words";

/** The most rows shown of a list. */
const SHOWN = 200;

type Thing = Record<string, unknown>;

function isThing(value: unknown): value is Thing {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function Data({ value }: { value: unknown }) {
  if (value === null || value === undefined || value === "") return <span className="quiet">–</span>;
  if (typeof value === "boolean") return <>{value ? "yes" : "no"}</>;
  if (typeof value === "number") return <span className="number">{Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(3)}</span>;
  if (Array.isArray(value)) return <Items items={value} />;
  if (isThing(value)) return <Facts facts={Object.entries(value).map(([name, inner]) => [title(name), <Data key={name} value={inner} />])} />;
  return <span className="break"><Say text={String(value)} /></span>;
}

function Items({ items }: { items: unknown[] }) {
  if (items.length === 0) return <span className="quiet">none</span>;
  const shown = items.slice(0, SHOWN);
  const more = items.length > SHOWN && <p className="quiet small">and {(items.length - SHOWN).toLocaleString("en")} more</p>;
  if (!items.every(isThing)) {
    return <><ul>{shown.map((item, index) => <li key={index}><Data value={item} /></li>)}</ul>{more}</>;
  }
  const rows = shown as Thing[];
  const columns = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  return (
    <div className="scroll" tabIndex={0} role="region" aria-label="Details">
      <table className="plain">
        <thead><tr>{columns.map((column) => <th key={column} scope="col">{title(column)}</th>)}</tr></thead>
        <tbody>
          {rows.map((row, index) => (
            <tr key={index}>{columns.map((column) => <td key={column}><Data value={row[column]} /></td>)}</tr>
          ))}
        </tbody>
      </table>
      {more}
    </div>
  );
}

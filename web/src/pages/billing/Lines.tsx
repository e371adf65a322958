// The lines of a month, or of some days of one.
import type { Schema } from "../../api/client";

const NAMES: Record<Schema["Position"], string> = {
  mailbox: "Protected", kept: "Kept", carried: "Carried", switchovers: "Switchovers", minimum: "Up to the minimum", correction: "Correction",
};
/** More rows than a person reads at once; the export has all. */
const SHOWN = 500;

/** A quantity in the unit people think in. */
export function quantity(line: Schema["InvoiceLine"]): string {
  if (line.unit === "days") return `${line.quantity} days`;
  if (line.unit === "byte-days") return `${(Number(line.quantity) / 1e9).toFixed(2)} GB days`;
  if (line.unit === "bytes") return `${(Number(line.quantity) / 1e9).toFixed(3)} GB`;
  return line.quantity;
}

export function Lines({ invoice, all = false }: { invoice: Schema["Invoice"]; all?: boolean }) {
  const lines = all ? invoice.lines : invoice.lines.slice(0, SHOWN);
  const title = `${invoice.from} to ${invoice.to}`;
  return (
    <div className="scroll" tabIndex={0} role="region" aria-label={title}>
      <table className="plain">
        <caption className="hidden">{title}</caption>
        <thead><tr><th scope="col">For</th><th scope="col">Mailbox</th><th scope="col" className="wide">Group</th><th scope="col" className="right">Quantity</th><th scope="col" className="right">Amount</th></tr></thead>
        <tbody>
          {lines.map((line, index) => (
            <tr key={index}>
              <td>{NAMES[line.position]}{line.note && <div className="quiet small">{line.note}</div>}</td>
              <td>{line.address || "–"}</td>
              <td className="wide">{line.group || "–"}</td>
              <td className="right number">{quantity(line)}</td>
              <td className="right number">{line.amount} {invoice.currency}</td>
            </tr>
          ))}
          {lines.length < invoice.lines.length && <tr><td colSpan={5} className="quiet">… and {invoice.lines.length - lines.length} more lines: export them.</td></tr>}
          <tr><th scope="row" colSpan={4}>{title}</th><td className="right number"><strong>{invoice.total} {invoice.currency}</strong></td></tr>
        </tbody>
      </table>
    </div>
  );
}

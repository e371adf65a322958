// What came of a change of sides, mailbox by mailbox: moved or not and why, how long its user was away, what was at stake.
import { Link } from "react-router";
import { ReasonAndRemedy } from "../../parts/Say";
import { Mark, type Tone } from "../../parts/State";
import { count, duration, mailboxes, words } from "../../parts/words";

interface Moved {
  address: string;
  outcome: string;
  reason?: string;
  remedy?: string;
  rto_seconds?: number;
  rpo_seconds?: number | null;
  lost_transactions?: number;
  stake?: { told?: string } | null;
  brought?: Record<string, unknown>;
  would?: Record<string, unknown>;
}

/** Rows drawn; those that did not move come first. */
const DRAWN = 500;

const OUTCOMES: Record<string, [Tone, string, string]> = {
  done: ["good", "✓", "moved"],
  already: ["still", "–", "there already"],
  rehearsed: ["busy", "i", "only looked"],
  failed: ["bad", "✕", "not moved"],
  cancelled: ["wait", "–", "cancelled"],
};
const ORDER = ["failed", "cancelled", "done", "rehearsed", "already"];

export function switched(result: unknown): Moved[] | null {
  const list = (result as { mailboxes?: Moved[] } | null)?.mailboxes;
  return Array.isArray(list) && list.every((one) => typeof one.outcome === "string" && typeof one.address === "string") ? list : null;
}

/** The numbers of a report that are not zero, in words. */
export function effects(report: Record<string, unknown> | undefined): string {
  const some = Object.entries(report ?? {}).filter((entry): entry is [string, number] => typeof entry[1] === "number" && entry[1] > 0);
  return some.length === 0 ? "nothing" : some.map(([name, value]) => `${words(name)} ${count(value)}`).join(", ");
}

export function Switched({ moved }: { moved: Moved[] }) {
  const sorted = [...moved].sort((a, b) => ORDER.indexOf(a.outcome) - ORDER.indexOf(b.outcome));
  const done = moved.filter((one) => one.outcome === "done");
  const longest = Math.max(0, ...done.map((one) => one.rto_seconds ?? 0));
  const lost = done.reduce((sum, one) => sum + (one.lost_transactions ?? 0), 0);
  return (
    <div className="stack tight">
      {done.length > 0 && (
        <p><strong>{mailboxes(done.length)} moved</strong>; nobody was away for longer than {duration(longest)}. {lost === 0 ? "Nothing that had arrived was left behind." : `${count(lost)} received transactions were not yet applied.`}</p>
      )}
      <div className="scroll" tabIndex={0} role="region" aria-label="Mailboxes of this run">
        <table className="plain">
          <thead><tr><th scope="col">Mailbox</th><th scope="col">Outcome</th><th scope="col" className="right">Away for</th><th scope="col">More</th></tr></thead>
          <tbody>
            {sorted.slice(0, DRAWN).map((one) => {
              const [tone, icon, word] = OUTCOMES[one.outcome] ?? ["still", "?", words(one.outcome)];
              return (
                <tr key={one.address}>
                  <td><Link to={`/mailboxes/${encodeURIComponent(one.address)}`}>{one.address}</Link></td>
                  <td><Mark tone={tone} icon={icon}>{word}</Mark></td>
                  <td className="right number nowrap">{one.rto_seconds === undefined ? "" : duration(one.rto_seconds)}</td>
                  <td>
                    {one.reason && <ReasonAndRemedy reason={one.reason} remedy={one.remedy} />}
                    {one.stake?.told && <div>At stake: {one.stake.told}.</div>}
                    {one.brought && <div>Brought back: {effects(one.brought)}.</div>}
                    {one.would && <div>Would change on the primary: {effects(one.would)}.</div>}
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
      {sorted.length > DRAWN && <p className="quiet small">and {count(sorted.length - DRAWN)} more</p>}
    </div>
  );
}

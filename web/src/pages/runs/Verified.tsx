// What a verification found.
import { Link } from "react-router";
import { Data } from "../../parts/Data";
import { ReasonAndRemedy, Say } from "../../parts/Say";
import { Mark } from "../../parts/State";
import { count, plural, title, whole } from "../../parts/words";

interface Difference {
  folder: string;
  uid: number | null;
  what: string;
  detail: string;
}

interface Compared {
  address: string;
  equal: boolean;
  messages: number;
  folders: number;
  differences: Difference[];
  more: number;
  detail: { reason: string; remedy: string } | null;
  /** Of a repair: what was done on the standby. */
  repaired?: unknown[];
  /** Messages that only the standby has, on purpose: the brake kept them. */
  kept?: number;
}

/** The result of a run of kind `verify`; null where it is something else. */
export function comparisons(result: unknown): Compared[] | null {
  const list = (result as { mailboxes?: Compared[] } | null)?.mailboxes;
  return Array.isArray(list) && list.every((one) => typeof one.equal === "boolean" && Array.isArray(one.differences)) ? list : null;
}

export function Verified({ result }: { result: unknown }) {
  const found = comparisons(result);
  if (!found) {
    const why = result as { reason?: string; remedy?: string } | null;
    return why?.reason ? <div className="note bad"><ReasonAndRemedy reason={why.reason} remedy={why.remedy} /></div> : null;
  }
  const different = found.filter((one) => !one.equal);
  const same = found.length - different.length;
  return (
    <div className="stack tight">
      {same > 0 && (
        <p><Mark tone="good" icon="✓">equal</Mark> {found.length === 1
          ? `${plural(found[0]?.messages ?? 0, "message")} in ${plural(found[0]?.folders ?? 0, "folder")} are the same on both sides.`
          : `${count(same)} of ${count(found.length)} mailboxes are the same on both sides.`}</p>
      )}
      {found.filter((one) => (one.repaired?.length ?? 0) > 0).map((one) => (
        <details key={`${one.address} repaired`}><summary>{plural(one.repaired?.length ?? 0, "repair")} on the standby{found.length > 1 && ` of ${one.address}`}</summary><Data value={one.repaired} /></details>
      ))}
      {found.some((one) => (one.kept ?? 0) > 0) && (
        <p className="quiet small">{plural(found.reduce((sum, one) => sum + (one.kept ?? 0), 0), "message")} only on the standby {"because somebody decided to keep them there."}</p>
      )}
      {different.map((one) => <Different key={one.address} one={one} named={found.length > 1} />)}
    </div>
  );
}

function Different({ one, named }: { one: Compared; named: boolean }) {
  if (one.detail) {
    return <div className="note bad">{named && <strong>{one.address}: </strong>}<ReasonAndRemedy reason={one.detail.reason} remedy={one.detail.remedy} /></div>;
  }
  const total = one.differences.length + one.more;
  return (
    <section className="stack tight" aria-label={`Differences of ${one.address}`}>
      <p><Mark tone="bad" icon="≠">{plural(total, "difference")}</Mark> {named && <Link to={`/mailboxes/${encodeURIComponent(one.address)}`}>{one.address}</Link>}</p>
      <div className="scroll" tabIndex={0} role="region" aria-label={`Differences of ${one.address}, each`}>
        <table className="plain">
          <thead><tr><th scope="col">What</th><th scope="col">Folder</th><th scope="col" className="right">UID</th><th scope="col">How</th></tr></thead>
          <tbody>
            {one.differences.map((difference, index) => (
              <tr key={index}><td className="nowrap">{title(difference.what)}</td><td>{difference.folder}</td><td className="right number">{difference.uid ?? ""}</td><td><Say text={whole(difference.detail)} /></td></tr>
            ))}
          </tbody>
        </table>
      </div>
      {one.more > 0 && <p className="quiet small">and {count(one.more)} more, not named</p>}
    </section>
  );
}

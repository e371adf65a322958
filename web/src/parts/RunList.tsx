// Runs in a few words each.
import { Link } from "react-router";
import type { Run } from "../api/client";
import { Ago, Took } from "./Ago";
import { runPath } from "./paths";
import { RunMark } from "./State";
import { count, title } from "./words";

/** What a run is about, by what was asked for. */
export function subject(run: Run): string {
  if (run.address) return run.address;
  if (run.server) return run.server;
  const request = run.request as { all?: boolean; addresses?: string[]; selector?: Record<string, unknown> } | null;
  if (request?.all) return "all mailboxes";
  const addresses = request?.addresses ?? (request?.selector?.addresses as string[] | undefined);
  if (addresses) return addresses.length === 1 ? (addresses[0] ?? "") : `${count(addresses.length)} mailboxes`;
  const selector = request?.selector;
  if (selector?.all) return "all mailboxes";
  if (typeof selector?.server === "string") return `every mailbox of ${selector.server}`;
  if (typeof selector?.group === "string") return `group ${selector.group}`;
  return "";
}

export function RunList({ runs }: { runs: Run[] }) {
  return (
    <ul className="lines">
      {runs.map((run) => (
        <li key={run.run_id} className="row between">
          <span><Link to={runPath(run.run_id)}>{title(run.kind)}</Link> <span className="break">{subject(run)}</span></span>
          <span className="row"><span className="quiet small">{run.started_at && !run.ended_at ? <Took from={run.started_at} to={null} /> : <Ago time={run.ended_at ?? run.created_at} />}</span><RunMark state={run.state} /></span>
        </li>
      ))}
    </ul>
  );
}

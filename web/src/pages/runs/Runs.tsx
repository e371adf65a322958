// Every piece of work somebody asked for, newest first.
import { Button, NativeSelect, Skeleton } from "@mantine/core";
import { Link, useSearchParams } from "react-router";
import type { Run } from "../../api/client";
import { useRuns } from "../../api/queries";
import { Ago, Took } from "../../parts/Ago";
import { Page } from "../../parts/Page";
import { runPath } from "../../parts/paths";
import { Problem } from "../../parts/Problem";
import { subject } from "../../parts/RunList";
import { RunMark } from "../../parts/State";
import { title } from "../../parts/words";

const STATES = ["waiting", "running", "done", "failed", "cancelled"];
const KINDS = ["switchover", "switchback", "verify", "barrier", "check", "discover", "estimate", "pause", "resume", "release", "discard"];

export default function Runs() {
  const [search, setSearch] = useSearchParams();
  const state = STATES.find((known) => known === search.get("state")) as Run["state"] | undefined;
  const kind = search.get("kind") ?? undefined;
  const runs = useRuns({ state, kind });
  const items = runs.data?.pages.flatMap((page) => page.items) ?? [];
  const change = (name: string, value: string) => setSearch((now) => {
    const next = new URLSearchParams(now);
    if (value) next.set(name, value);
    else next.delete(name);
    return next;
  });
  return (
    <Page title="Runs" about="A run is a piece of work somebody asked for. It survives restarts, and its steps have times.">
      <div className="stack">
        <form className="row" role="search" onSubmit={(event) => event.preventDefault()}>
          <NativeSelect label="State" value={state ?? ""} onChange={(event) => change("state", event.currentTarget.value)} data={[{ value: "", label: "any" }, ...STATES]} />
          <NativeSelect label="Kind" value={kind ?? ""} onChange={(event) => change("kind", event.currentTarget.value)} data={[{ value: "", label: "any" }, ...KINDS]} />
        </form>
        <Problem error={runs.error} retry={() => void runs.refetch()} />
        {runs.isPending && <Skeleton h={200} />}
        {runs.data && items.length === 0 && <div className="card"><p className="quiet">{state || kind ? "No run is like that." : "Nobody asked for anything yet. Verify a mailbox, check a server or switch over, and it is kept here."}</p></div>}
        {items.length > 0 && (
          <div className="card scroll" tabIndex={0} role="region" aria-label="Runs">
            <table className="plain">
              <thead><tr><th scope="col">Kind</th><th scope="col">State</th><th scope="col">About</th><th scope="col" className="wide">Asked for by</th><th scope="col">When</th><th scope="col" className="wide">Took</th></tr></thead>
              <tbody>
                {items.map((run) => (
                  <tr key={run.run_id}>
                    <td><Link to={runPath(run.run_id)}>{title(run.kind)}</Link></td>
                    <td><RunMark state={run.state} /></td>
                    <td>{subject(run)}</td>
                    <td className="wide">{run.requested_by}</td>
                    <td className="nowrap"><Ago time={run.created_at} /></td>
                    <td className="wide nowrap">{run.started_at && (run.ended_at || run.state === "running") && <Took from={run.started_at} to={run.ended_at} />}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
        {runs.hasNextPage && <div><Button variant="default" loading={runs.isFetchingNextPage} onClick={() => void runs.fetchNextPage()}>Older runs</Button></div>}
      </div>
    </Page>
  );
}

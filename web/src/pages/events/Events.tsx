// What happened, newest first, and what happens as it happens.
import { Button, NativeSelect, Skeleton } from "@mantine/core";
import { useMemo } from "react";
import { useSearchParams } from "react-router";
import type { Event } from "../../api/client";
import { useRecentEvents } from "../../api/live";
import { useHistory } from "../../api/queries";
import { EventList } from "../../parts/EventList";
import { Page } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { words } from "../../parts/words";

const KINDS = ["state", "trouble", "protected", "unprotected", "paused", "resumed", "changed", "run", "run_step", "server_added", "server_changed", "server_removed"];
/** The most events drawn at once. */
const DRAWN = 1000;

export default function Events() {
  const [search, setSearch] = useSearchParams();
  const kind = search.get("kind") ?? undefined;
  const history = useHistory({ kind });
  const recent = useRecentEvents();
  const events = useMemo(() => {
    const known = new Map<number, Event>();
    for (const event of recent) if (!kind || event.kind === kind) known.set(event.event_id, event);
    for (const page of history.data?.pages ?? []) for (const event of page.items) known.set(event.event_id, event);
    return [...known.values()].sort((a, b) => b.event_id - a.event_id).slice(0, DRAWN);
  }, [recent, history.data, kind]);
  return (
    <Page title="Events" about="What people see happening: states, troubles, runs, servers.">
      <div className="stack">
        <form className="row" onSubmit={(event) => event.preventDefault()}>
          <NativeSelect label="Kind" value={kind ?? ""} onChange={(event) => setSearch(event.currentTarget.value ? { kind: event.currentTarget.value } : {})}
            data={[{ value: "", label: "any" }, ...KINDS.map((value) => ({ value, label: words(value) }))]} />
        </form>
        <Problem error={history.error} retry={() => void history.refetch()} />
        {history.isPending ? <Skeleton h={300} /> : <section className="card" aria-label="Events"><EventList events={events} /></section>}
        {history.hasNextPage && events.length < DRAWN && <div><Button variant="default" loading={history.isFetchingNextPage} onClick={() => void history.fetchNextPage()}>Older events</Button></div>}
      </div>
    </Page>
  );
}

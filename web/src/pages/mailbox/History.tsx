// What was done with a mailbox and what happened to it, newest first.
import { Button } from "@mantine/core";
import type { Mailbox } from "../../api/client";
import { useHistory, useRuns } from "../../api/queries";
import { EventList } from "../../parts/EventList";
import { Card } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { RunList } from "../../parts/RunList";

export function History({ mailbox }: { mailbox: Mailbox }) {
  const runs = useRuns({ mailbox: mailbox.address }, 10);
  const events = useHistory({ mailbox: mailbox.address, primary: mailbox.primary }, 50);
  const shownRuns = runs.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <div className="columns">
      <Card title="Runs">
        <Problem error={runs.error} />
        {runs.data && (shownRuns.length > 0 ? <RunList runs={shownRuns} /> : <p className="quiet">Nobody asked for anything yet. Verifying, pausing and switching leave runs here.</p>)}
        {runs.hasNextPage && <div><Button size="xs" variant="default" loading={runs.isFetchingNextPage} onClick={() => void runs.fetchNextPage()}>Older runs</Button></div>}
      </Card>
      <Card title="Events">
        <Problem error={events.error} />
        {events.data && <EventList own events={events.data.pages.flatMap((page) => page.items)} />}
        {events.hasNextPage && <div><Button size="xs" variant="default" loading={events.isFetchingNextPage} onClick={() => void events.fetchNextPage()}>Older events</Button></div>}
      </Card>
    </div>
  );
}

// How things are: one sentence, what needs a person, lag and throughput, what goes on.
import { Button, Skeleton } from "@mantine/core";
import { Link } from "react-router";
import type { Status } from "../../api/client";
import { useHistory, useStatus } from "../../api/queries";
import { Ago } from "../../parts/Ago";
import { EventList } from "../../parts/EventList";
import { Card, Page } from "../../parts/Page";
import { statePath } from "../../parts/paths";
import { Problem } from "../../parts/Problem";
import { RunList } from "../../parts/RunList";
import { Say } from "../../parts/Say";
import { MAILBOX_STATES, MailboxMark, Mark } from "../../parts/State";
import { bytes, count, duration, plural } from "../../parts/words";
import { Attention } from "./Attention";
import { Checklist } from "./Checklist";
import { Measured } from "./Measured";

/** Events shown here; the steps of runs are on the runs' own pages. */
const EVENTS = 8;
const LOOKED_THROUGH = 60;

export default function Overview() {
  const { data: status, error, refetch } = useStatus();
  return (
    <Page title="Overview" actions={<Button component={Link} to="/protect" variant="default">Protect mailboxes</Button>}>
      {error && !status ? <Problem error={error} retry={() => void refetch()} /> : null}
      {status ? <Known status={status} /> : error ? null : <div className="stack"><Skeleton h={32} /><Skeleton h={90} /><Skeleton h={200} /></div>}
    </Page>
  );
}

function Known({ status }: { status: Status }) {
  const { mailboxes, lag, link } = status;
  const begun = mailboxes.total > 0;
  return (
    <div className="stack">
      <p className="sentence" role="status"><Say text={status.sentence} /></p>
      {!begun && <Checklist status={status} />}
      {begun && (
        <>
          <Attention status={status} />
          <nav aria-label="Mailboxes by state" className="tiles">
            {MAILBOX_STATES.filter((state) => (mailboxes.by_state[state] ?? 0) > 0 || state === "mirroring").map((state) => (
              <Link key={state} className="tile" to={statePath(state)}>
                <div className="count">{count(mailboxes.by_state[state] ?? 0)}</div>
                <MailboxMark state={state} />
              </Link>
            ))}
            <div className="tile">
              <div className="count">{lag.transactions === 0 ? "0 s" : duration(lag.seconds)}</div>
              <span className="quiet small">
                {lag.transactions === 0 ? "behind: nothing waits" : `behind: ${plural(lag.transactions, "transaction")}, ${bytes(lag.bytes)}`}
              </span>
            </div>
            <div className="tile">
              <div><Mark tone={link.connected ? "good" : "bad"} icon={link.connected ? "✓" : "✕"}>{link.connected ? "connected" : "silent"}</Mark></div>
              <span className="quiet small">link; source gateway heard <Ago time={link.heard_at} /></span>
            </div>
          </nav>
          <Measured />
          <div className="columns">
            <Card title="Running now" actions={<Link to="/runs">All runs</Link>}>
              {status.runs.items.length > 0 ? <RunList runs={status.runs.items} /> : <p className="quiet">Nothing runs. A run is a verification, a switchover or another piece of work somebody asked for.</p>}
            </Card>
            <Latest />
          </div>
        </>
      )}
    </div>
  );
}

function Latest() {
  const { data, error } = useHistory({}, LOOKED_THROUGH);
  return (
    <Card title="Latest events" actions={<Link to="/events">All events</Link>}>
      <Problem error={error} />
      {data && <EventList events={(data.pages[0]?.items ?? []).filter((event) => event.kind !== "run_step").slice(0, EVENTS)} short />}
    </Card>
  );
}

// Which primaries are mirrored to which standbys: drawn, and as a table that says the same.
import { Button, Skeleton } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "react-router";
import { api, body, type MailboxState, type Schema } from "../../api/client";
import { POLL_MS } from "../../api/queries";
import { Page } from "../../parts/Page";
import { serverPath } from "../../parts/paths";
import { Problem } from "../../parts/Problem";
import { MAILBOX_STATES, MailboxMark } from "../../parts/State";
import { bytes, count, duration, mailboxes, plural } from "../../parts/words";
import { Drawing } from "./Drawing";

export type Mirror = Schema["Mirror"];

export default function ReplicationMap() {
  const { data, error, refetch, hasNextPage, fetchNextPage } = useInfiniteQuery({
    queryKey: ["status", "map"],
    initialPageParam: undefined as string | undefined,
    queryFn: async ({ pageParam, signal }) => body(await api.GET("/api/v1/map", { params: { query: { limit: 200, after: pageParam } }, signal })),
    getNextPageParam: (page) => page.next ?? undefined,
    refetchInterval: POLL_MS,
  });
  const mirrors = data?.pages.flatMap((page) => page.items);
  return (
    <Page title="Replication map" about="Which primary is mirrored to which standby, how many mailboxes, which way their changes flow, and how far behind the other side is.">
      {error && !mirrors ? <Problem error={error} retry={() => void refetch()} /> : null}
      {!mirrors && !error && <Skeleton h={240} />}
      {mirrors?.length === 0 && (
        <div className="card stack tight">
          <p>No mailbox is protected yet, so nothing is mirrored.</p>
          <div className="row"><Button component={Link} to="/protect">Protect mailboxes</Button></div>
        </div>
      )}
      {mirrors && mirrors.length > 0 && (
        <div className="stack">
          <Drawing mirrors={mirrors} />
          <Table mirrors={mirrors} />
          {hasNextPage && <div><Button variant="default" onClick={() => void fetchNextPage()}>Show more</Button></div>}
        </div>
      )}
    </Page>
  );
}

/** Behind by how much, in words. */
export function behind({ lagging, lag }: Mirror): string {
  if (lagging === 0) return "nothing waits";
  return `${mailboxes(lagging)} behind by ${plural(lag.transactions, "transaction")}, ${bytes(lag.bytes)}; the oldest waits for ${duration(lag.seconds)}`;
}

/** The states that any mailbox of it is in. */
export function states(mirror: Mirror): [MailboxState, number][] {
  return MAILBOX_STATES.map((state): [MailboxState, number] => [state, mirror.by_state[state] ?? 0]).filter(([, number]) => number > 0);
}

function Table({ mirrors }: { mirrors: Mirror[] }) {
  return (
    <div className="card scroll" tabIndex={0} role="region" aria-label="Mirrors as a table">
      <table className="plain">
        <thead>
          <tr>
            <th scope="col">Primary</th><th scope="col">Standby</th><th scope="col" className="right">Mailboxes</th><th scope="col">Direction</th>
            <th scope="col">State</th><th scope="col">Lag</th>
          </tr>
        </thead>
        <tbody>
          {mirrors.map((mirror) => (
            <tr key={`${mirror.primary} ${mirror.standby}`}>
              <td><Link to={serverPath(mirror.primary)}>{mirror.primary}</Link></td>
              <td><Link to={serverPath(mirror.standby)}>{mirror.standby}</Link></td>
              <td className="right number"><Link to={`/mailboxes?server=${encodeURIComponent(mirror.primary)}`}>{count(mirror.mailboxes)}</Link></td>
              <td><Direction mirror={mirror} /></td>
              <td><span className="row">{states(mirror).map(([state, number]) => <span key={state} className="nowrap"><span className="number">{count(number)}</span> <MailboxMark state={state} /></span>)}</span></td>
              <td>{behind(mirror)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Direction({ mirror }: { mirror: Mirror }) {
  return (
    <>
      {mirror.outbound > 0 && <span className="nowrap">{count(mirror.outbound)} to the standby</span>}
      {mirror.outbound > 0 && mirror.on_standby > 0 && <br />}
      {mirror.on_standby > 0 && <span className="nowrap">{count(mirror.on_standby)} work on the standby</span>}
    </>
  );
}

// The transactions of a mailbox, newest first: what each changed, and when it was captured, received and applied.
import { Button } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { api, body, type Mailbox, type Schema } from "../../api/client";
import { At } from "../../parts/Ago";
import { Card } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { Mark } from "../../parts/State";
import { bytes, count, duration, plural } from "../../parts/words";

type Entry = Schema["JournalEntry"];

const seconds = (from: string, to: string): number => Math.max(0, (Date.parse(to) - Date.parse(from)) / 1000);

/** What is in a transaction, in words. */
export function contents(entry: Entry): string {
  const parts: [number, string][] = [
    [entry.messages_added, `${plural(entry.messages_added, "message")} added`],
    [entry.messages_removed, `${count(entry.messages_removed)} removed`],
    [entry.messages_flagged, `${count(entry.messages_flagged)} flagged`],
    [entry.folders_created, `${plural(entry.folders_created, "folder")} created`],
    [entry.folders_renamed, `${plural(entry.folders_renamed, "folder")} renamed`],
    [entry.folders_deleted, `${plural(entry.folders_deleted, "folder")} deleted`],
    [entry.other, `${plural(entry.other, "subscription or special use", "subscriptions or special uses")} changed`],
  ];
  const said = parts.filter(([number]) => number > 0).map(([, text]) => text);
  return said.length > 0 ? said.join(", ") : "only positions moved on";
}

export function Journal({ mailbox }: { mailbox: Mailbox }) {
  const { data, error, hasNextPage, fetchNextPage, isFetchingNextPage } = useInfiniteQuery({
    queryKey: ["mailbox", mailbox.address, mailbox.primary, "transactions"],
    initialPageParam: undefined as string | undefined,
    queryFn: async ({ pageParam, signal }) => body(await api.GET("/api/v1/mailboxes/{address}/transactions", {
      params: { path: { address: mailbox.address }, query: { primary: mailbox.primary, limit: 25, after: pageParam } }, signal,
    })),
    getNextPageParam: (page) => page.next ?? undefined,
  });
  const entries = data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <Card title="Transactions">
      <Problem error={error} />
      {data && entries.length === 0 && <p className="quiet">None has been received yet.</p>}
      {entries.length > 0 && (
        <div className="scroll" tabIndex={0} role="region" aria-label="Transactions, newest first">
          <table className="plain">
            <thead><tr><th scope="col" className="right">Number</th><th scope="col">Captured</th><th scope="col">What changed</th><th scope="col" className="right">Content</th><th scope="col" className="right">Received after</th><th scope="col">Applied after</th></tr></thead>
            <tbody>
              {entries.map((entry) => (
                <tr key={`${entry.epoch} ${entry.seq}`}>
                  <td className="right number">{count(entry.seq)}</td><td><At time={entry.captured_at} /></td>
                  <td>{contents(entry)}{entry.seed && <span className="quiet"> (first copy)</span>}</td>
                  <td className="right number nowrap">{entry.content_bytes > 0 ? bytes(entry.content_bytes) : "–"}</td>
                  <td className="right number nowrap">{duration(seconds(entry.captured_at, entry.received_at))}</td>
                  <td className="nowrap">{entry.applied_at ? <span className="number">{duration(seconds(entry.captured_at, entry.applied_at))}</span> : <Mark tone="wait" icon="…">waits</Mark>}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {hasNextPage && <div><Button size="xs" variant="default" loading={isFetchingNextPage} onClick={() => void fetchNextPage()}>Older transactions</Button></div>}
    </Card>
  );
}

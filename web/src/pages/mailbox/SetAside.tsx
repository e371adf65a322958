// The messages that the standby does not hold as they are, each with the reason.
import { Button } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { api, body, type Mailbox } from "../../api/client";
import { Card } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { Say } from "../../parts/Say";
import { Mark } from "../../parts/State";
import { bytes, whole } from "../../parts/words";

export function SetAside({ mailbox }: { mailbox: Mailbox }) {
  const { data, error, hasNextPage, fetchNextPage, isFetchingNextPage } = useInfiniteQuery({
    queryKey: ["mailbox", mailbox.address, mailbox.primary, "problems"],
    initialPageParam: undefined as string | undefined,
    queryFn: async ({ pageParam, signal }) => body(await api.GET("/api/v1/mailboxes/{address}/problems", {
      params: { path: { address: mailbox.address }, query: { primary: mailbox.primary, limit: 100, after: pageParam } }, signal,
    })),
    getNextPageParam: (page) => page.next ?? undefined,
  });
  const messages = data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <Card title="Set aside">
      <Problem error={error} />
      {data && messages.length === 0 && <p className="quiet">None: the standby holds every message as it is.</p>}
      {messages.length > 0 && (
        <>
          <p>The standby refused these messages or stored them with other bytes. The rest goes on; they are tried again when the mailbox is resumed or the standby has room.</p>
          <div className="scroll" tabIndex={0} role="region" aria-label="Messages set aside">
            <table className="plain">
              <thead><tr><th scope="col">Folder</th><th scope="col" className="right">UID</th><th scope="col" className="right">Size</th><th scope="col">What</th><th scope="col">Reason</th></tr></thead>
              <tbody>
                {messages.map((message) => (
                  <tr key={`${message.folder}\n${message.uid}`}>
                    <td>{message.folder}</td><td className="right number">{message.uid}</td><td className="right number nowrap">{bytes(message.size)}</td>
                    <td><Mark tone={message.kind === "refused" ? "bad" : "wait"} icon={message.kind === "refused" ? "✕" : "≠"}>{message.kind}</Mark></td>
                    <td><Say text={whole(message.reason)} /></td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      )}
      {hasNextPage && <div><Button size="xs" variant="default" loading={isFetchingNextPage} onClick={() => void fetchNextPage()}>Show more</Button></div>}
    </Card>
  );
}

// What needs a person, worst first; each with its reason and what to do.
import { useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { Link } from "react-router";
import { api, body, type MailboxState, type Status } from "../../api/client";
import { useMe } from "../../api/session";
import { mailboxPath, serverPath, statePath } from "../../parts/paths";
import { ReasonAndRemedy } from "../../parts/Say";
import { Card } from "../../parts/Page";
import { mailboxes, plural } from "../../parts/words";

/** Mailboxes of a state named here; the list has the others. */
const NAMED = 5;

export function Attention({ status }: { status: Status }) {
  const faulted = status.mailboxes.by_state["faulted"] ?? 0;
  const held = status.mailboxes.by_state["held"] ?? 0;
  const silent = !status.link.connected;
  const may = useMe()?.is_provider;
  const servers = status.servers.filter((server) => server.trouble);
  const down = status.servers.filter((server) => server.health?.verdict === "down");
  if (!faulted && !held && !silent && servers.length === 0 && down.length === 0 && status.set_aside === 0) return null;
  return (
    <Card title="Needs a person">
      <ul className="lines">
        {silent && <Item><ReasonAndRemedy reason="No source gateway is connected: nothing that changes on the primaries arrives"
          remedy="check that `understudy source` (or `understudy up`) runs beside the primary and reaches this site" />{may && <> <Link to="/link">Look at the link</Link>.</>}</Item>}
        {down.map((server) => server.health && (
          <Item key={`down ${server.name}`}>
            <Link to={serverPath(server.name)}>{server.name}</Link> is down: <ReasonAndRemedy reason={server.health.reason ?? ""} remedy={server.role === "primary" ? "bring it back, or move its users: Switchover, Emergency" : "bring it back: nobody can be moved there"} />
          </Item>
        ))}
        {servers.map((server) => server.trouble && (
          <Item key={server.name}>
            <Link to={serverPath(server.name)}>{server.name}</Link>{server.trouble.mailboxes > 0 && ` (${mailboxes(server.trouble.mailboxes)})`}: <ReasonAndRemedy reason={server.trouble.reason.replace(`${server.name}: `, "")} remedy={server.trouble.remedy} />
          </Item>
        ))}
        {held > 0 && <InState state="held" total={held} what="stopped by the mass-change brake; say whether the changes are meant" />}
        {faulted > 0 && <InState state="faulted" total={faulted} what="stopped by an error" />}
        {status.set_aside > 0 && (
          <Item>{plural(status.set_aside, "message is", "messages are")} not on a standby as they are. Each mailbox lists its own under “Set aside”, with the reason.</Item>
        )}
      </ul>
    </Card>
  );
}

function Item({ children }: { children: ReactNode }) {
  return <li>{children}</li>;
}

function InState({ state, total, what }: { state: MailboxState; total: number; what: string }) {
  const { data } = useQuery({
    queryKey: ["mailboxes", "attention", state],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/mailboxes", { params: { query: { state, limit: NAMED } }, signal })).items,
  });
  return (
    <li>
      <Link to={statePath(state)}>{mailboxes(total)}</Link> {what}{data ? ":" : "."}
      <ul style={{ paddingLeft: "1rem" }}>
        {data?.map((mailbox) => (
          <li key={`${mailbox.primary} ${mailbox.address}`}>
            <Link to={mailboxPath(mailbox)}>{mailbox.address}</Link>{mailbox.detail && <>: <ReasonAndRemedy {...mailbox.detail} /></>}
          </li>
        ))}
      </ul>
    </li>
  );
}

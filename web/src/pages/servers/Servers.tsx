// The mail servers Understudy knows, and whether they are well.
import { Button, Skeleton } from "@mantine/core";
import { Link } from "react-router";
import type { Server } from "../../api/client";
import { useServers } from "../../api/queries";
import { Ago } from "../../parts/Ago";
import { Page } from "../../parts/Page";
import { serverPath } from "../../parts/paths";
import { Problem } from "../../parts/Problem";
import { ReasonAndRemedy } from "../../parts/Say";
import { Mark } from "../../parts/State";
import { mailboxes, whole } from "../../parts/words";
import { VerdictMark } from "./Health";

/** A server in one word, worst first. */
export function ServerMark({ server }: { server: Server }) {
  const failed = server.last_check?.findings.some((finding) => finding.level === "failed");
  if (server.health?.verdict === "down") return <Mark tone="bad" icon="✕">down</Mark>;
  if (server.trouble || failed) return <Mark tone="bad" icon="✕">trouble</Mark>;
  if (server.health?.verdict === "suspect") return <Mark tone="wait" icon="!">suspect</Mark>;
  if (!server.last_checked_at) return <Mark tone="still" icon="○">not checked</Mark>;
  if (server.last_check?.findings.some((finding) => finding.level === "warning")) return <Mark tone="wait" icon="!">warnings</Mark>;
  return <Mark tone="good" icon="✓">checked</Mark>;
}

export default function Servers() {
  const { data: servers, error, refetch } = useServers();
  return (
    <Page title="Servers" actions={<Button component={Link} to="/servers/new">Add a server</Button>}>
      {error ? <Problem error={error} retry={() => void refetch()} /> : null}
      {!servers && !error && <Skeleton h={160} />}
      {servers?.length === 0 && (
        <div className="card stack tight">
          <p>No mail server is known yet. Name the one your users work on (the primary) and the one that is to mirror it (the standby).</p>
          <div className="row"><Button component={Link} to="/servers/new?role=primary">Add the primary</Button></div>
        </div>
      )}
      {servers && (["primary", "standby"] as const).map((role) => <Group key={role} role={role} servers={servers.filter((server) => server.role === role)} />)}
    </Page>
  );
}

function Group({ role, servers }: { role: Server["role"]; servers: Server[] }) {
  if (servers.length === 0) return null;
  return (
    <section className="stack tight" style={{ marginBottom: "1.5rem" }} aria-label={role === "primary" ? "Primaries" : "Standbys"}>
      <h2>{role === "primary" ? "Primaries: where users work in normal times" : "Standbys: where the mirror is"}</h2>
      <div className="columns">
        {servers.map((server) => (
          <article key={server.name} className="card stack tight">
            <div className="row between"><h3><Link to={serverPath(server.name)}>{server.name}</Link></h3><ServerMark server={server} /></div>
            <p className="small break"><code>{server.imap}</code></p>
            <p className="quiet small"><Link to={`/mailboxes?server=${encodeURIComponent(server.name)}`}>{mailboxes(server.mailboxes)}</Link>; checked <Ago time={server.last_checked_at} /></p>
            {server.health && <p className="small row"><VerdictMark verdict={server.health.verdict} /><span className="quiet">{whole(server.health.reason ?? "")}</span></p>}
            {server.trouble && <p className="small"><ReasonAndRemedy reason={server.trouble.reason} remedy={server.trouble.remedy} /></p>}
          </article>
        ))}
      </div>
    </section>
  );
}

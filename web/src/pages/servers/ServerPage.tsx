// One mail server: how it is reached, what the last check found, checking it again.
import { Button, Skeleton, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useEffect, useState } from "react";
import { Link, useNavigate, useParams } from "react-router";
import { api, body, type Server } from "../../api/client";
import { ended, useRun, useServer } from "../../api/queries";
import { Ago } from "../../parts/Ago";
import { Confirm } from "../../parts/Confirm";
import { Card, Facts, Page } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { ReasonAndRemedy } from "../../parts/Say";
import { Shell } from "../../parts/Shell";
import { mailboxes } from "../../parts/words";
import { Findings } from "./Findings";
import { Health } from "./Health";
import { ServerMark } from "./Servers";

const LOGINS = { master: "one master user for all mailboxes", authzid: "SASL PLAIN with an authorisation identity", each: "each user's own password" };

export default function ServerPage() {
  const { name = "" } = useParams();
  const { data: server, error, refetch } = useServer(name);
  return (
    <Page title={name} above={["/servers", "Servers"]} mark={server && <ServerMark server={server} />} about={server?.role === "standby" ? "A standby: it holds the mirror" : server && "A primary: users work here in normal times"}
      actions={server && <Remove server={server} />}>
      {error ? <Problem error={error} retry={() => void refetch()} /> : null}
      {server ? <Known server={server} /> : error ? null : <Skeleton h={240} />}
    </Page>
  );
}

function Known({ server }: { server: Server }) {
  return (
    <div className="stack">
      {server.trouble && <div className="note bad" role="status"><ReasonAndRemedy reason={server.trouble.reason} remedy={server.trouble.remedy} />{server.trouble.mailboxes > 0 && ` ${mailboxes(server.trouble.mailboxes)} feel it.`}</div>}
      <div className="columns">
        <Card title="How it is reached">
          <Facts facts={[
            ["IMAP", <code key="imap">{server.imap}</code>],
            ["Log-in", LOGINS[server.login.as]],
            ["User", server.login.user],
            ["Password file", server.login.password_file && <code key="file">{server.login.password_file}</code>],
            ["Form", server.login.form && <code key="form">{server.login.form}</code>],
            ["Trusts only", server.ca_file && <code key="ca">{server.ca_file}</code>],
            ["Way home", server.return_login && LOGINS[server.return_login.as]],
            ["Submission", server.submission && <code key="submission">{server.submission}</code>],
            ["LMTP", server.lmtp && <code key="lmtp">{server.lmtp}</code>],
            ["Management", server.manage && <code key="manage">{server.manage.doveadm}</code>],
            ["Mailboxes", <Link key="mailboxes" to={`/mailboxes?server=${encodeURIComponent(server.name)}`}>{mailboxes(server.mailboxes)}</Link>],
            ["Added", <Ago key="added" time={server.created_at} />],
          ]} />
          <p className="quiet small">{server.configured ? "It comes from the configuration file, which is the only place to change it." : <>To change it: <code>understudy server</code> or the REST API.</>}</p>
        </Card>
        <Check server={server} />
      </div>
      <Health name={server.name} />
      <Card title={server.last_checked_at ? "What the last check found" : "Not checked yet"} actions={server.last_checked_at && <span className="quiet small"><Ago time={server.last_checked_at} /></span>}>
        {server.last_check ? <Findings check={server.last_check} /> : <p className="quiet">A check logs in and says what each capability means for mirroring.</p>}
      </Card>
    </div>
  );
}

function Check({ server }: { server: Server }) {
  const client = useQueryClient();
  const [address, setAddress] = useState("");
  const [id, setId] = useState<string | null>(null);
  const [error, setError] = useState<unknown>(null);
  const { data: run } = useRun(id);
  const over = run ? ended(run) : false;
  useEffect(() => {
    if (!over) return;
    for (const key of [["server", server.name], ["servers"], ["status"]]) void client.invalidateQueries({ queryKey: key });
  }, [over, client, server.name]);

  async function check(event: FormEvent) {
    event.preventDefault();
    setError(null);
    try {
      const begun = body(await api.POST("/api/v1/servers/{name}/check", {
        params: { path: { name: server.name } }, body: { address: address.trim() || undefined },
      }));
      setId(begun.run_id);
    } catch (problem) {
      setError(problem);
    }
  }

  const why = over && run?.state === "failed" ? (run.result as { reason?: string; remedy?: string } | null) : null;
  return (
    <Card title="Check it">
      <form className="stack tight" onSubmit={check}>
        <TextInput label="Log in as this user too" description="An address as the server takes it; without one only the connection and the log-in are tried." placeholder="ana@example.org" value={address}
          onChange={(event) => setAddress(event.currentTarget.value)} autoComplete="off" spellCheck={false} />
        <div><Button type="submit" loading={id !== null && !over}>Check now</Button></div>
      </form>
      <div role="status">
        {over && run?.state === "done" && <p className="note good">Checked; the findings are below.</p>}
        {why?.reason && <div className="note bad"><ReasonAndRemedy reason={why.reason} remedy={why.remedy} /></div>}
      </div>
      <Problem error={error} />
      <details className="small"><summary>The same in a terminal</summary><Shell label="Check in a terminal">{`understudy server check ${server.name}${address.trim() ? ` --address ${address.trim()}` : ""}`}</Shell></details>
    </Card>
  );
}

function Remove({ server }: { server: Server }) {
  const navigate = useNavigate();
  const client = useQueryClient();
  const [asking, setAsking] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  if (server.configured) return null;
  return (
    <>
      <Button variant="default" onClick={() => setAsking(true)}>Remove…</Button>
      {asking && (
        <Confirm title={`Remove ${server.name}?`} act="Remove" danger busy={busy} error={error} onClose={() => setAsking(false)} onAct={() => {
          setBusy(true);
          api.DELETE("/api/v1/servers/{name}", { params: { path: { name: server.name } } })
            .then(() => {
              void client.invalidateQueries({ queryKey: ["servers"] });
              navigate("/servers");
            })
            .catch((problem: unknown) => {
              setBusy(false);
              setError(problem);
            });
        }}>
          <p>Understudy forgets how to reach it. Nothing changes on the server itself. A server with protected mailboxes stays until they are unprotected.</p>
        </Confirm>
      )}
    </>
  );
}

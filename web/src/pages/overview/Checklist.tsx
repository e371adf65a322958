// The first run: five steps, each done or with what to do, ending with the first protected mailbox.
import { Button } from "@mantine/core";
import type { ReactNode } from "react";
import { Link } from "react-router";
import type { Server, Status } from "../../api/client";
import { serverPath } from "../../parts/paths";
import { Shell } from "../../parts/Shell";

interface Step {
  name: string;
  done: boolean;
  todo: ReactNode;
}

const isGood = (server: Server) => server.last_check !== null && server.last_check !== undefined && !server.last_check.findings.some((finding) => finding.level === "failed");

export function Checklist({ status }: { status: Status }) {
  const primaries = status.servers.filter((server) => server.role === "primary");
  const standbys = status.servers.filter((server) => server.role === "standby");
  const checked = primaries.some(isGood) && standbys.some(isGood);
  const add = (role: "primary" | "standby") => (
    <div className="row"><Button component={Link} to={`/servers/new?role=${role}`} size="xs">Add the {role}</Button></div>
  );
  const steps: Step[] = [
    {
      name: "Connect the gateways",
      done: status.link.connected,
      todo: <p>The source gateway dials by itself and has not been heard of. <code>understudy up</code> runs everything; with two sites, start <code>understudy source</code> beside the primary.</p>,
    },
    { name: "Name the primary: the mail server your users work on", done: primaries.length > 0, todo: <>
      <p>A log-in that may read every mailbox is enough. Understudy never writes there while it mirrors.</p>{add("primary")}</> },
    { name: "Name the standby: the mail server that is to hold the mirror", done: standbys.length > 0, todo: <>
      <p>Its users must exist; Understudy makes folders, not users.</p>{add("standby")}</> },
    { name: "Check both: can Understudy log in, and what can each server do", done: checked, todo: <div className="row">
      {[...primaries, ...standbys].map((server) => (
        <Button key={server.name} component={Link} to={serverPath(server.name)} size="xs" variant={isGood(server) ? "default" : "filled"}>
          {isGood(server) ? `${server.name} is checked` : `Check ${server.name}`}
        </Button>
      ))}
      {primaries.length + standbys.length === 0 && <p className="quiet">Comes after naming them.</p>}
    </div> },
    { name: "Protect a first mailbox", done: status.mailboxes.total > 0, todo: <>
      <p>Begin with your own. It is copied once, then followed live.</p>
      {primaries.length > 0 && standbys.length > 0
        ? <div className="row"><Button component={Link} to="/protect" size="xs">Protect mailboxes</Button></div>
        : <p className="quiet">Comes after naming both servers.</p>}</> },
  ];
  const now = steps.findIndex((step) => !step.done);
  return (
    <section className="card" aria-label="First steps">
      <h2>From here to the first protected mailbox</h2>
      <ol className="checklist">
        {steps.map((step, index) => (
          <li key={step.name} className={step.done ? "done" : index === now ? "now" : ""} aria-current={index === now ? "step" : undefined}>
            <span className="mark" aria-hidden="true">{step.done ? "✓" : index + 1}</span>
            <div className="stack tight">
              <h3>{step.name}{step.done && <span className="hidden"> (done)</span>}</h3>
              {!step.done && step.todo}
            </div>
          </li>
        ))}
      </ol>
      <details className="small" style={{ marginTop: "0.5rem" }}>
        <summary>The same in a terminal</summary>
        <Shell label="First steps in a terminal">{`understudy server add mail-a --role primary --imap imaps://mail-a.example.org \\
    --login master --user understudy --password-file /etc/understudy/mail-a.password
understudy server add dr-1 --role standby --imap imaps://dr-1.example.org \\
    --login master --user understudy --password-file /etc/understudy/dr-1.password
understudy server check mail-a --address ana@example.org
understudy mailbox protect ana@example.org --primary mail-a --standby dr-1
understudy status --watch`}</Shell>
      </details>
    </section>
  );
}

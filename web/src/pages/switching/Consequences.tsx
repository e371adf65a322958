// What will happen, said before it does: who moves, who does not and why, what may be missing.
import type { ReactNode } from "react";
import { Link } from "react-router";
import type { Mailbox, Server } from "../../api/client";
import { Names } from "../../parts/Confirm";
import { mailboxPath, serverPath } from "../../parts/paths";
import { Mark, type Tone } from "../../parts/State";
import { count, duration, mailboxes, plural, whole, words } from "../../parts/words";
import type { Look, Target } from "./look";
import type { Mode } from "./request";

/** Mailboxes named one by one under a check. */
const NAMED = 10;

interface ConsequencesProps {
  seen: Look;
  target: Target;
  mode: Mode;
  servers: Server[];
}

export function Consequences({ seen, target, mode, servers }: ConsequencesProps) {
  if (seen.moved.length === 0) {
    return <p role="status">{seen.already.length > 0 ? `${mailboxes(seen.already.length)} ${seen.already.length === 1 ? "is" : "are"} on the ${target} already; there is nobody to move.` : "No protected mailbox is meant by this."}</p>;
  }
  const planned = mode === "planned";
  const involved = new Set(seen.moved.flatMap((mailbox) => [mailbox.primary, mailbox.standby]));
  const troubled = servers.filter((server) => involved.has(server.name) && server.trouble);
  const goals = new Set(seen.moved.map((mailbox) => mailbox[target]));
  return (
    <div className="stack tight">
      <p role="status"><strong>{mailboxes(seen.moved.length)}</strong> will work on <strong>{[...goals].join(", ")}</strong>: sessions there are ended and log-ins wait for the moment it takes, then go to the {target}.
        {seen.already.length > 0 && ` ${mailboxes(seen.already.length)} ${seen.already.length === 1 ? "is" : "are"} there already and stay${seen.already.length === 1 ? "s" : ""}.`}</p>
      <ul className="lines" aria-label="Checks">
        {troubled.map((server) => <Check key={server.name} tone="bad" icon="✕" word="trouble"><Link to={serverPath(server.name)}>{server.name}</Link>: {whole(server.trouble?.reason.replace(`${server.name}: `, "") ?? "")}</Check>)}
        {seen.behind.length === 0
          ? <Check tone="good" icon="✓" word="level">Nothing waits: every captured change is on the {target}.</Check>
          : <Check tone={planned ? "wait" : "bad"} icon="!" word={planned ? "waits" : "at stake"}>
              {mailboxes(seen.behind.length)} {seen.behind.length === 1 ? "has" : "have"} {plural(seen.transactions, "transaction")} not yet applied; the oldest is {duration(seen.seconds)} old. {planned ? "They are waited for." : "What of it has not reached the recovery site may be missing."}
              <Few some={seen.behind} about={(mailbox) => `${count(mailbox.lag.transactions)}, oldest ${duration(mailbox.lag.seconds)}`} />
            </Check>}
        {[...seen.stopped].map(([state, some]) => (
          <Check key={state} tone={planned ? "wait" : "bad"} icon="!" word={words(state)}>
            {mailboxes(some.length)} {some.length === 1 ? "is" : "are"} {words(state)}: {planned ? "not moved unless that is over in time." : "moved as complete as the other side is."}
            <Few some={some} about={(mailbox) => mailbox.detail?.reason ?? ""} />
          </Check>
        ))}
        {seen.setAside > 0 && <Check tone="wait" icon="!" word="set aside">{plural(seen.setAside, "message is", "messages are")} not on the standby as they are; each mailbox lists its own.</Check>}
        {seen.unverified.length > 0 && <Check tone="still" icon="i" word="not verified">{mailboxes(seen.unverified.length)} {seen.unverified.length === 1 ? "was" : "were"} never found equal by a verification.</Check>}
      </ul>
      <details className="small"><summary>Who will be moved</summary><Names names={seen.moved.map((mailbox) => mailbox.address)} /></details>
      {!planned && <p className="note bad">An emergency moves users without asking the primary. Changes it had not yet handed over are missing until it is back.</p>}
    </div>
  );
}

function Check({ tone, icon, word, children }: { tone: Tone; icon: string; word: string; children: ReactNode }) {
  return <li><Mark tone={tone} icon={icon}>{word}</Mark> {children}</li>;
}

function Few({ some, about }: { some: Mailbox[]; about: (mailbox: Mailbox) => string }) {
  return (
    <ul className="small" style={{ paddingLeft: "1rem" }}>
      {some.slice(0, NAMED).map((mailbox) => <li key={`${mailbox.primary} ${mailbox.address}`}><Link to={mailboxPath(mailbox)}>{mailbox.address}</Link> <span className="quiet">{about(mailbox)}</span></li>)}
      {some.length > NAMED && <li className="quiet">and {count(some.length - NAMED)} more</li>}
    </ul>
  );
}

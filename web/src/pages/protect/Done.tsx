// What came of protecting a list, and how far the first copy is.
import { Button, Progress } from "@mantine/core";
import { Link } from "react-router";
import type { Schema } from "../../api/client";
import { useMailbox, useStatus } from "../../api/queries";
import { Card } from "../../parts/Page";
import { mailboxPath } from "../../parts/paths";
import { ReasonAndRemedy, Say } from "../../parts/Say";
import { MailboxMark } from "../../parts/State";
import { bytes, count, mailboxes, whole } from "../../parts/words";

/** Up to so many mailboxes are followed one by one. */
const FOLLOWED = 8;

export function Done({ done, again }: { done: Schema["Protected"]; again: () => void }) {
  return (
    <div className="stack" style={{ maxWidth: "52rem" }}>
      <div className="note good" role="status">
        {done.protected > 0 ? `${mailboxes(done.protected)} ${done.protected === 1 ? "is" : "are"} protected now.` : "Nothing is new."}
        {done.unchanged > 0 && ` ${mailboxes(done.unchanged)} ${done.unchanged === 1 ? "was" : "were"} protected already.`}
      </div>
      {done.skipped.length > 0 && (
        <Card title={`Left out: ${count(done.skipped.length)}`}>
          <ul className="lines">
            {done.skipped.slice(0, 100).map((skipped, index) => (
              <li key={index}>{skipped.line ? `Line ${skipped.line}, ` : ""}<strong className="break">{skipped.address}</strong>: <Say text={whole(skipped.detail)} />{skipped.nearest && <> Did you mean <code>{skipped.nearest}</code>?</>}</li>
            ))}
            {done.skipped.length > 100 && <li className="quiet">and {count(done.skipped.length - 100)} more</li>}
          </ul>
        </Card>
      )}
      {done.mailboxes.length > 0 && (
        <Card title="First copy">
          {done.mailboxes.length <= FOLLOWED ? (
            <ul className="lines">{done.mailboxes.map((mailbox) => <Seeding key={`${mailbox.primary} ${mailbox.address}`} which={mailbox} />)}</ul>
          ) : <AllSeeding />}
        </Card>
      )}
      <div className="row">
        <Button component={Link} to="/mailboxes">See all mailboxes</Button>
        <Button component={Link} to="/" variant="default">Overview</Button>
        <Button variant="default" onClick={again}>Protect more</Button>
      </div>
    </div>
  );
}

function Seeding({ which }: { which: { address: string; primary: string } }) {
  const { data: mailbox } = useMailbox(which.address, which.primary);
  const progress = mailbox?.progress;
  const part = progress && progress.messages_total > 0 ? (progress.messages_done / progress.messages_total) * 100 : mailbox?.state === "seeding" ? 0 : 100;
  return (
    <li className="stack tight">
      <div className="row between"><Link to={mailboxPath(which)} className="break">{which.address}</Link>{mailbox && <MailboxMark state={mailbox.state} />}</div>
      {mailbox?.detail && <p className="small"><ReasonAndRemedy reason={mailbox.detail.reason} remedy={mailbox.detail.remedy} /></p>}
      {mailbox?.state === "seeding" && <Progress value={part} size="sm" aria-label={`First copy of ${which.address}`} />}
      {progress && <p className="quiet small number">{progress.messages_total > 0 ? `${count(progress.messages_done)} of ${count(progress.messages_total)} messages, ${bytes(progress.bytes_done)}` : mailbox?.state === "seeding" ? "counting…" : "no messages"}</p>}
    </li>
  );
}

function AllSeeding() {
  const { data: status } = useStatus();
  if (!status) return null;
  const seeding = status.mailboxes.by_state["seeding"] ?? 0;
  const part = ((status.mailboxes.total - seeding) / Math.max(1, status.mailboxes.total)) * 100;
  return (
    <>
      <Progress value={part} aria-label="First copies" />
      <p className="small" role="status">{seeding === 0 ? "Every mailbox has been copied." : <><Link to="/mailboxes?state=seeding">{mailboxes(seeding)}</Link> being copied for the first time.</>}</p>
    </>
  );
}

// What the mass-change brake stopped: what going on would remove from the standby, and the two ways to decide.
import { Button } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useNavigate } from "react-router";
import { useCan } from "../../api/abilities";
import { api, body, type Mailbox } from "../../api/client";
import { Ago } from "../../parts/Ago";
import { Confirm } from "../../parts/Confirm";
import { runPath } from "../../parts/paths";
import { Problem } from "../../parts/Problem";
import { ReasonAndRemedy } from "../../parts/Say";
import { bytes, count, plural } from "../../parts/words";

export function Held({ mailbox }: { mailbox: Mailbox }) {
  const can = useCan();
  const known = can("GET /api/v1/mailboxes/{address}/held");
  const params = { path: { address: mailbox.address }, query: { primary: mailbox.primary } };
  const { data: held, error } = useQuery({
    queryKey: ["mailbox", mailbox.address, mailbox.primary, "held"],
    enabled: known === true,
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/mailboxes/{address}/held", { params, signal })),
  });
  const [deciding, setDeciding] = useState<"release" | "discard" | null>(null);
  return (
    <section className="note wait stack tight" aria-label="Held by the brake">
      <h2>Held by the mass-change brake{held?.since && <>, <Ago time={held.since} /></>}</h2>
      {mailbox.detail && <p><ReasonAndRemedy reason={mailbox.detail.reason} remedy={mailbox.detail.remedy} /></p>}
      <Problem error={error} />
      {held && (
        <>
          <p>Going on would remove <strong>{plural(held.messages, "message")}</strong> ({bytes(held.bytes)}) from the standby:</p>
          <div className="scroll" tabIndex={0} role="region" aria-label="What would be removed">
            <table className="plain">
              <thead><tr><th scope="col">Folder</th><th scope="col" className="right">Messages</th><th scope="col" className="right">Size</th><th scope="col">Among them</th></tr></thead>
              <tbody>
                {held.folders.map((folder) => (
                  <tr key={folder.folder}>
                    <td>{folder.folder}{folder.deletes_folder && <div className="small">the folder itself too</div>}</td>
                    <td className="right number">{count(folder.messages)}</td><td className="right number nowrap">{bytes(folder.bytes)}</td>
                    <td><ul>{folder.sample.slice(0, 4).map((message) => <li key={message.uid}>{message.subject ?? <span className="quiet">no subject</span>} <span className="quiet small">UID {message.uid}</span></li>)}</ul></td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </>
      )}
      {known && (
        <div className="row">
          <Button color="red" onClick={() => setDeciding("release")}>It was meant: remove it…</Button>
          <Button variant="default" onClick={() => setDeciding("discard")}>It was not meant: keep it…</Button>
        </div>
      )}
      {deciding && <Decide mailbox={mailbox} messages={held?.messages ?? 0} decision={deciding} onClose={() => setDeciding(null)} />}
    </section>
  );
}

interface DecideProps {
  mailbox: Mailbox;
  messages: number;
  decision: "release" | "discard";
  onClose: () => void;
}

function Decide({ mailbox, messages, decision, onClose }: DecideProps) {
  const navigate = useNavigate();
  const client = useQueryClient();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const release = decision === "release";
  async function decide(reason: string) {
    setBusy(true);
    const options = { params: { path: { address: mailbox.address }, query: { primary: mailbox.primary } }, body: { reason } };
    try {
      const run = body(release
        ? await api.POST("/api/v1/mailboxes/{address}/release", options)
        : await api.POST("/api/v1/mailboxes/{address}/discard", options));
      void client.invalidateQueries({ queryKey: ["mailbox", mailbox.address] });
      navigate(runPath(run.run_id));
    } catch (problem) {
      setError(problem);
      setBusy(false);
    }
  }
  return (
    <Confirm title={release ? `Remove ${plural(messages, "message")} from the standby?` : "Keep them on the standby?"} act={release ? "Remove and go on" : "Keep and go on"}
      danger={release} typed={release ? String(messages) : undefined} busy={busy} error={error} onAct={(reason) => void decide(reason)} onClose={onClose}>
      <p>{release
        ? "What the primary removed is removed from the standby too, and the mailbox goes on being mirrored. The standby's copies are gone then."
        : "The standby keeps what the primary removed, and the mailbox goes on being mirrored. From then on the two sides differ by these messages."}</p>
    </Confirm>
  );
}

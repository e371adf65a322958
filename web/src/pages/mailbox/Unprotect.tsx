// Ends the protection of one mailbox.
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useNavigate } from "react-router";
import { api, type Mailbox } from "../../api/client";
import { Confirm } from "../../parts/Confirm";

export function Unprotect({ mailbox, onClose }: { mailbox: Mailbox; onClose: () => void }) {
  const navigate = useNavigate();
  const client = useQueryClient();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  return (
    <Confirm title={`Unprotect ${mailbox.address}?`} act="Unprotect" danger busy={busy} error={error} onClose={onClose} onAct={() => {
      setBusy(true);
      api.DELETE("/api/v1/mailboxes/{address}", { params: { path: { address: mailbox.address }, query: { primary: mailbox.primary } } })
        .then(() => {
          client.removeQueries({ queryKey: ["mailbox", mailbox.address] });
          void client.invalidateQueries({ queryKey: ["mailboxes"] });
          navigate("/mailboxes");
        })
        .catch((problem: unknown) => {
          setBusy(false);
          setError(problem);
        });
    }}>
      <p>It is mirrored no longer: changes made from now on are not on the standby. The copy there stays as it was last applied; protecting again takes it over by content.</p>
    </Confirm>
  );
}

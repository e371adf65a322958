// The users a primary says it serves, to choose from. Only servers with a list of their own can say.
import { Button, Checkbox, Textarea, TextInput } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { api, body, type Run } from "../../api/client";
import { ended, useRun } from "../../api/queries";
import { Problem } from "../../parts/Problem";
import { ReasonAndRemedy } from "../../parts/Say";
import { count, mailboxes } from "../../parts/words";
import { every } from "../mailboxes/useMailboxes";
import { meant } from "./rule";

/** The most names drawn; a search finds the others. */
const DRAWN = 300;

interface DiscoveredProps {
  primary: string;
  /** A run that asked already. */
  run: string | null;
  picked: string[];
  onPick: (picked: string[]) => void;
}

export function Discovered({ primary, run: asked, picked, onPick }: DiscoveredProps) {
  const [id, setId] = useState(asked);
  const [error, setError] = useState<unknown>(null);
  const [part, setPart] = useState("");
  const [rule, setRule] = useState("");
  const { data: run } = useRun(id);
  // Whoever is protected already is not offered again.
  const known = useQuery({
    queryKey: ["mailboxes", "of", primary],
    enabled: run?.state === "done",
    queryFn: async ({ signal }) => {
      const addresses = new Set<string>();
      for await (const page of every({ server: primary }, signal)) page.forEach((mailbox) => addresses.add(mailbox.address.toLowerCase()));
      return addresses;
    },
  });

  async function ask() {
    setError(null);
    try {
      const begun = body(await api.POST("/api/v1/mailboxes", { body: { discover: true, primary } })) as unknown as Run;
      setId(begun.run_id);
    } catch (problem) {
      setError(problem);
    }
  }

  const why = run?.state === "failed" ? (run.result as { reason?: string; remedy?: string } | null) : null;
  const users = run?.state === "done" ? ((run.result as { users?: string[] } | null)?.users ?? []) : null;
  const fresh = users?.filter((user) => !known.data?.has(user.toLowerCase())) ?? [];
  const shown = fresh.filter((user) => user.toLowerCase().includes(part.trim().toLowerCase()));
  const ruled = meant(rule, fresh);
  const chosen = new Set(picked);
  return (
    <div className="stack tight">
      <div className="row">
        <Button variant="default" loading={id !== null && (!run || !ended(run))} onClick={() => void ask()}>Ask {primary} for its users</Button>
        {users && <span className="quiet small">{mailboxes(users.length)}, {count(users.length - fresh.length)} protected already</span>}
      </div>
      <p className="quiet small">IMAP cannot list users. A Dovecot whose management interface is named can, and a server whose log-ins are in a file (“each”); with the others, paste a list instead.</p>
      <Problem error={error} />
      {why?.reason && <div className="note wait" role="status"><ReasonAndRemedy reason={why.reason} remedy={why.remedy} /></div>}
      {users && (
        <>
          <details className="small">
            <summary>By a rule</summary>
            <div className="stack tight">
              <Textarea label="Rule" description="Patterns, one a line: * is any text, ? one character. A line that begins with ! leaves out whom it fits." placeholder={"*@sales.example.org\n!test-*"}
                autosize minRows={2} maxRows={8} value={rule} onChange={(event) => setRule(event.currentTarget.value)} spellCheck={false} />
              <div className="row"><Button variant="default" disabled={ruled.length === 0} onClick={() => onPick(ruled)}>Choose whom it means: {count(ruled.length)}</Button></div>
            </div>
          </details>
          <div className="row" style={{ alignItems: "flex-end" }}>
            <TextInput label="Address contains" type="search" value={part} onChange={(event) => setPart(event.currentTarget.value)} autoComplete="off" />
            <Button variant="default" onClick={() => onPick([...new Set([...picked, ...shown])])} disabled={shown.length === 0}>Choose these {count(shown.length)}</Button>
            <Button variant="subtle" onClick={() => onPick([])} disabled={picked.length === 0}>Choose none</Button>
          </div>
          <ul className="card" style={{ maxHeight: "18rem", overflowY: "auto" }} tabIndex={0} aria-label="Users found">
            {shown.slice(0, DRAWN).map((user) => (
              <li key={user}><Checkbox size="xs" label={user} checked={chosen.has(user)} onChange={() => onPick(chosen.has(user) ? picked.filter((one) => one !== user) : [...picked, user])} /></li>
            ))}
            {shown.length > DRAWN && <li className="quiet small">and {count(shown.length - DRAWN)} more; search to narrow them down</li>}
            {shown.length === 0 && <li className="quiet">Nobody is left.</li>}
          </ul>
          <p className="small" role="status">{mailboxes(picked.length)} chosen</p>
        </>
      )}
    </div>
  );
}

// Gives a mailbox another group or policy.
import { Button, Group, Stack, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { Dialog } from "../../parts/Dialog";
import { api, type Mailbox } from "../../api/client";
import { NameGroup } from "../../parts/Groups";
import { Problem } from "../../parts/Problem";

export function Change({ mailbox, onClose }: { mailbox: Mailbox; onClose: () => void }) {
  const client = useQueryClient();
  const [group, setGroup] = useState(mailbox.group);
  const [policy, setPolicy] = useState(mailbox.policy);
  const [error, setError] = useState<unknown>(null);
  async function save(event: FormEvent) {
    event.preventDefault();
    try {
      await api.PATCH("/api/v1/mailboxes/{address}", {
        params: { path: { address: mailbox.address }, query: { primary: mailbox.primary } },
        body: { group: group.trim(), policy: policy.trim() },
      });
      await client.invalidateQueries({ queryKey: ["mailbox", mailbox.address] });
      onClose();
    } catch (problem) {
      setError(problem);
    }
  }
  return (
    <Dialog onClose={onClose} title={`Group and policy of ${mailbox.address}`}>
      <form onSubmit={save}>
        <Stack gap="sm">
          <NameGroup label="Group" description="Mailboxes of one group can be switched together." value={group} onChange={setGroup} autoFocus />
          <TextInput label="Policy" description="A name for how it is treated." value={policy} onChange={(event) => setPolicy(event.currentTarget.value)} />
          <Problem error={error} />
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>Cancel</Button><Button type="submit">Save</Button></Group>
        </Stack>
      </form>
    </Dialog>
  );
}

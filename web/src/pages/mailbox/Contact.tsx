// Where else the mailbox's user is told of changes of side, and in which language.
import { Button, Group, NativeSelect, Skeleton, Stack, TextInput } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { type FormEvent, useEffect, useState } from "react";
import { api, body, type Mailbox } from "../../api/client";
import { Dialog } from "../../parts/Dialog";
import { Problem } from "../../parts/Problem";

export function Contact({ mailbox, onClose }: { mailbox: Mailbox; onClose: () => void }) {
  const params = { path: { address: mailbox.address } };
  const { data, error } = useQuery({
    queryKey: ["mailbox", mailbox.address, mailbox.primary, "contact"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/mailboxes/{address}/contact", { params, signal })),
  });
  const [alternate, setAlternate] = useState("");
  const [language, setLanguage] = useState("");
  const [failure, setFailure] = useState<unknown>(null);
  useEffect(() => {
    setAlternate(data?.alternate ?? "");
    setLanguage(data?.language ?? "");
  }, [data]);
  async function save(event: FormEvent) {
    event.preventDefault();
    setFailure(null);
    try {
      await api.PUT("/api/v1/mailboxes/{address}/contact", { params, body: { alternate: alternate.trim() || null, language: language || null } });
      onClose();
    } catch (problem) {
      setFailure(problem);
    }
  }
  return (
    <Dialog onClose={onClose} title={`Where ${mailbox.address} is told`}>
      <form onSubmit={save}>
        <Stack gap="sm">
          <Problem error={error} />
          {!data && !error && <Skeleton h={120} />}
          {data && (
            <>
              <p>Of changes of side, in the mailbox itself and here:</p>
              <TextInput label="Alternate address" description="One outside the mail servers that are protected, so that it can be read while they are down. May be left empty." type="email"
                value={alternate} onChange={(event) => setAlternate(event.currentTarget.value)} data-autofocus />
              <NativeSelect label="Language" value={language} onChange={(event) => setLanguage(event.currentTarget.value)}
                data={[{ value: "", label: "the tenant's" }, { value: "en", label: "English" }, { value: "de", label: "German" }]} />
            </>
          )}
          <Problem error={failure} />
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>Cancel</Button><Button type="submit" disabled={!data}>Save</Button></Group>
        </Stack>
      </form>
    </Dialog>
  );
}

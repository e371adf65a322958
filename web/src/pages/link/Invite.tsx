// Makes the token that pairs a site with this one: shown once, with what to do with it.
import { Button, Group, NativeSelect, Stack, Textarea, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api, body, Refusal, type Schema } from "../../api/client";
import { useNow } from "../../parts/Ago";
import { Dialog } from "../../parts/Dialog";
import { Problem } from "../../parts/Problem";
import { Shell } from "../../parts/Shell";
import { duration, whole } from "../../parts/words";

const LIVES = [["600", "10 minutes"], ["3600", "an hour"], ["86400", "a day"]] as const;

export function Invite({ onClose }: { onClose: () => void }) {
  const client = useQueryClient();
  const [name, setName] = useState("");
  const [urls, setUrls] = useState("");
  const [seconds, setSeconds] = useState("600");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const [made, setMade] = useState<Schema["CreatedInvitation"] | null>(null);
  const wrong = (pointer: string) => {
    const items = error instanceof Refusal ? error.problem.errors ?? [] : [];
    const found = items.filter((item) => item.pointer?.startsWith(pointer));
    return found.length > 0 ? [...new Set(found.map((item) => whole(item.detail)))].join(" ") : undefined;
  };

  async function make(event: FormEvent) {
    event.preventDefault();
    setError(null);
    setBusy(true);
    try {
      const wanted = { name: name.trim(), urls: urls.split(/\s+/).filter(Boolean), seconds: Number(seconds) };
      setMade(body(await api.POST("/api/v1/link/invitations", { body: wanted })));
      void client.invalidateQueries({ queryKey: ["link"] });
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  }

  if (made) return <Made made={made} onClose={onClose} />;
  return (
    <Dialog onClose={onClose} title="Invite a site">
      <form onSubmit={make}>
        <Stack gap="sm">
          <p>Makes a token for the site with the primaries. It is good once, and the two sites know each other by certificates from then on.</p>
          <Textarea label="Where that site reaches this one" description="https://HOST:PORT, one a line, the best first. Left empty: where the recovery gateway listens."
            autosize minRows={2} maxRows={6} value={urls} onChange={(event) => setUrls(event.currentTarget.value)} autoComplete="off" spellCheck={false} data-autofocus error={wrong("/urls")} />
          <TextInput label="What that site will be called" description="Left empty: what it calls itself." value={name}
            onChange={(event) => setName(event.currentTarget.value)} autoComplete="off" error={wrong("/name")} />
          <NativeSelect label="Good for" value={seconds} onChange={(event) => setSeconds(event.currentTarget.value)} data={LIVES.map(([value, label]) => ({ value, label }))} />
          {!wrong("/urls") && !wrong("/name") && <Problem error={error} />}
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>Cancel</Button><Button type="submit" loading={busy}>Make the token</Button></Group>
        </Stack>
      </form>
    </Dialog>
  );
}

function Made({ made, onClose }: { made: Schema["CreatedInvitation"]; onClose: () => void }) {
  const left = Math.max(0, (Date.parse(made.expires_at) - useNow()) / 1000);
  return (
    <Dialog onClose={onClose} title="The token" sticky>
      <Stack gap="sm">
        <p>Run this at the other site. The token is shown here once, and is good once{left > 0 ? `, for ${duration(left)} more` : ". Its time is over: make another one"}.</p>
        <Shell label="Join">{`understudy link join ${made.token ?? ""}`}</Shell>
        <p>It shows the fingerprint of the site it joins. Compare it with this one:</p>
        <p className="break"><code>{made.fingerprint}</code></p>
        <p className="quiet small">It will come to {made.urls.join(", ")}. Then start <code>understudy source</code> there; one that runs goes on by itself.</p>
        <Group justify="flex-end"><Button onClick={onClose}>I have copied it</Button></Group>
      </Stack>
    </Dialog>
  );
}

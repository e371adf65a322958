// Lets in who has a token; keeps the page current while somebody is in.
import { Button, PasswordInput, Stack } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useEffect, useState } from "react";
import { listen } from "../api/live";
import { measureFor } from "../api/samples";
import { lastRefusal, signIn, useToken } from "../api/session";
import { Frame } from "./Frame";
import { Shell } from "./Shell";

export function Door() {
  const token = useToken();
  const client = useQueryClient();
  useEffect(() => {
    if (!token) return undefined;
    const leaving = new AbortController();
    void listen(client, token, leaving.signal);
    void measureFor(leaving.signal);
    return () => {
      leaving.abort();
      // What one person may see is not kept for the next.
      client.clear();
    };
  }, [client, token]);
  return token ? <Frame /> : <SignIn />;
}

function SignIn() {
  const [given, setGiven] = useState("");
  const [asking, setAsking] = useState(false);
  const [refused, setRefused] = useState(lastRefusal);
  useEffect(() => {
    document.title = "Sign in · Understudy";
  }, []);

  async function enter(event: FormEvent) {
    event.preventDefault();
    const secret = given.trim();
    if (!secret) {
      setRefused("Paste a token first.");
      return;
    }
    setAsking(true);
    try {
      const answer = await fetch("/api/v1/status", { headers: { Authorization: `Bearer ${secret}` }, cache: "no-store" });
      if (answer.ok) signIn(secret);
      else if (answer.status === 401) setRefused("This token is not known, has expired or was revoked. Make another one.");
      else if (answer.status === 403) setRefused("The role of this token may not look at anything here. Ask an administrator for another one.");
      else setRefused(`Understudy answered ${answer.status}. Check that it runs, then try again.`);
    } catch {
      setRefused("Understudy did not answer. Check that it runs, then try again.");
    }
    setAsking(false);
  }

  return (
    <main className="door">
      <form className="card" onSubmit={enter}>
        <Stack gap="md">
          <h1 className="brand"><img src={`${import.meta.env.BASE_URL}icon.svg`} alt="" width="28" height="28" />Understudy</h1>
          <p>Make a token on the server and paste it here. It stays in this browser tab until you close the tab.</p>
          <Shell label="Make a token">{'understudy token create --role administrator --name "my browser"'}</Shell>
          <PasswordInput label="Token" value={given} onChange={(event) => setGiven(event.currentTarget.value)} autoComplete="off"
            spellCheck={false} placeholder="understudy_…" error={refused || undefined} autoFocus
            visibilityToggleButtonProps={{ "aria-label": "Show the token", tabIndex: 0 }} />
          <Button type="submit" loading={asking}>Sign in</Button>
          <p className="small quiet">A <code>viewer</code> looks, an <code>operator</code> also pauses, verifies and switches, an <code>administrator</code> configures.</p>
        </Stack>
      </form>
    </main>
  );
}

// Lets in who logs in or has a token; keeps the page current while somebody is in.
import { Button, PasswordInput, Stack, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useEffect, useState } from "react";
import { listen } from "../api/live";
import { measureFor } from "../api/samples";
import { lastRefusal, type Me, recognise, signIn, useMe } from "../api/session";
import { Frame } from "./Frame";
import { Shell } from "./Shell";
import { whole } from "./words";

const NO_ANSWER = "Understudy did not answer. Check that it runs, then try again.";

export function Door() {
  const me = useMe();
  const client = useQueryClient();
  const isIn = Boolean(me);
  // A mailbox's user may not ask for the lag of all.
  const isUser = me?.role === "user";
  const tenant = me?.tenant;
  useEffect(() => void recognise(), []);
  useEffect(() => {
    if (!isIn) return undefined;
    const leaving = new AbortController();
    void listen(client, leaving.signal);
    if (!isUser) void measureFor(leaving.signal);
    return () => {
      leaving.abort();
      // What one person may see is not kept for the next.
      client.clear();
    };
  }, [client, isIn, isUser, tenant]);
  if (me === undefined) return <main className="door"><h1 className="hidden">Understudy</h1><p className="quiet">Loading…</p></main>;
  return me ? <Frame key={me.tenant} /> : <SignIn />;
}

function SignIn() {
  useEffect(() => {
    document.title = "Sign in · Understudy";
  }, []);
  return (
    <main className="door">
      <div className="card">
        <Stack gap="md">
          <h1 className="brand"><img src={`${import.meta.env.BASE_URL}icon.svg`} alt="" width="28" height="28" />Understudy</h1>
          <LogIn />
          <details>
            <summary>No account yet?</summary>
            <p>The first administrator is made on the server:</p>
            <Shell label="Make an account">understudy user add NAME --role administrator</Shell>
          </details>
          <WithToken />
        </Stack>
      </div>
    </main>
  );
}

function LogIn() {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [code, setCode] = useState<string | null>(null);
  const [asking, setAsking] = useState(false);
  const [refused, setRefused] = useState(lastRefusal);

  async function enter(event: FormEvent) {
    event.preventDefault();
    setAsking(true);
    setRefused("");
    try {
      const answer = await fetch("/api/v1/sessions", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ name: name.trim(), password, ...(code ? { code } : {}) }),
      });
      const said = await answer.json();
      if (answer.ok) {
        signIn(said as Me);
        return;
      }
      if (String(said.type).endsWith(":second_factor_required")) setCode("");
      else setRefused(`${whole(said.detail)} ${whole(answer.status === 429 ? said.remedy : "")}`.trim());
    } catch {
      setRefused(NO_ANSWER);
    }
    setAsking(false);
  }

  return (
    <form onSubmit={enter}>
      <Stack gap="sm">
        {refused && <p role="alert" className="wrong">{refused}</p>}
        <TextInput label="Name" value={name} onChange={(event) => setName(event.currentTarget.value)} autoComplete="username" spellCheck={false} required autoFocus />
        <PasswordInput label="Password" value={password} onChange={(event) => setPassword(event.currentTarget.value)} autoComplete="current-password" required
          visibilityToggleButtonProps={{ "aria-label": "Show the password", tabIndex: 0 }} />
        {code !== null && <TextInput label="Code" description="The six digits your app shows, or a recovery code." value={code} autoFocus required
          onChange={(event) => setCode(event.currentTarget.value)} autoComplete="one-time-code" inputMode="text" />}
        <Button type="submit" loading={asking}>Log in</Button>
      </Stack>
    </form>
  );
}

function WithToken() {
  const [given, setGiven] = useState("");
  const [asking, setAsking] = useState(false);
  const [refused, setRefused] = useState("");

  async function enter(event: FormEvent) {
    event.preventDefault();
    const secret = given.trim();
    if (!secret) {
      setRefused("Paste a token first.");
      return;
    }
    setAsking(true);
    try {
      const answer = await fetch("/api/v1/me", { headers: { Authorization: `Bearer ${secret}` }, cache: "no-store" });
      if (answer.ok) {
        signIn((await answer.json()) as Me, secret);
        return;
      }
      if (answer.status === 401) setRefused("This token is not known, has expired or was revoked. Make another one.");
      else setRefused(`Understudy answered ${answer.status}. Check that it runs, then try again.`);
    } catch {
      setRefused(NO_ANSWER);
    }
    setAsking(false);
  }

  return (
    <form onSubmit={enter}>
      <Stack gap="sm">
        <PasswordInput label="Token" description="Instead of an account; it stays in this tab until you close it." value={given}
          onChange={(event) => setGiven(event.currentTarget.value)} autoComplete="off" spellCheck={false} placeholder="understudy_…" error={refused || undefined}
          visibilityToggleButtonProps={{ "aria-label": "Show the token", tabIndex: 0 }} />
        <Button type="submit" variant="default" loading={asking}>Sign in</Button>
      </Stack>
    </form>
  );
}

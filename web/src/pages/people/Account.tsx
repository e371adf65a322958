// One's own account: the password and the second factor.
import { Button, Group, PasswordInput, Stack, TextInput } from "@mantine/core";
import { type FormEvent, useState } from "react";
import { Link } from "react-router";
import { api, body } from "../../api/client";
import { recognise, useMe } from "../../api/session";
import { Page } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { Shell } from "../../parts/Shell";

const toggle = { "aria-label": "Show the password", tabIndex: 0 };

export default function Account() {
  const me = useMe();
  if (!me) return null;
  return (
    <Page title="Your account" about={`You are ${me.name}, ${me.role}.`}>
      {me.mailbox && <p>Your mailbox: <Link to={`/mailboxes/${encodeURIComponent(me.mailbox)}`}>{me.mailbox}</Link></p>}
      {me.session ? <><SecondFactor inForce={me.session.second_factor} left={me.session.recovery_codes_left} /><Password /></>
        : <p>You came with a token, which has no password and no second factor. An account has; an administrator makes one.</p>}
    </Page>
  );
}

function Password() {
  const [current, setCurrent] = useState("");
  const [next, setNext] = useState("");
  const [error, setError] = useState<unknown>(null);
  const [done, setDone] = useState(false);
  async function change(event: FormEvent) {
    event.preventDefault();
    setError(null);
    setDone(false);
    try {
      await api.PUT("/api/v1/me/password", { body: { current, new: next } });
      setDone(true);
      setCurrent("");
      setNext("");
    } catch (problem) {
      setError(problem);
    }
  }
  return (
    <form onSubmit={change} className="card">
      <Stack gap="sm">
        <h2>Password</h2>
        <PasswordInput label="Password now" required value={current} autoComplete="current-password" onChange={(event) => setCurrent(event.currentTarget.value)} visibilityToggleButtonProps={toggle} />
        <PasswordInput label="New password" description="At least 12 characters. Your other sessions end." required value={next} autoComplete="new-password" onChange={(event) => setNext(event.currentTarget.value)} visibilityToggleButtonProps={toggle} />
        <Problem error={error} />
        {done && <p role="status">The password is changed.</p>}
        <Group><Button type="submit">Change it</Button></Group>
      </Stack>
    </form>
  );
}

function SecondFactor({ inForce, left }: { inForce: boolean; left: number }) {
  const [password, setPassword] = useState("");
  const [setup, setSetup] = useState<{ secret: string; uri: string } | null>(null);
  const [code, setCode] = useState("");
  const [codes, setCodes] = useState<string[] | null>(null);
  const [error, setError] = useState<unknown>(null);

  async function act(event: FormEvent) {
    event.preventDefault();
    setError(null);
    try {
      if (setup) {
        setCodes(body(await api.POST("/api/v1/me/second-factor/confirm", { body: { code } })).recovery_codes ?? []);
        setSetup(null);
        await recognise();
      } else if (inForce) {
        await api.POST("/api/v1/me/second-factor/remove", { body: { password } });
        await recognise();
      } else {
        setSetup(body(await api.POST("/api/v1/me/second-factor", { body: { password } })).setup ?? null);
      }
      setPassword("");
    } catch (problem) {
      setError(problem);
    }
  }

  return (
    <form onSubmit={act} className="card">
      <Stack gap="sm">
        <h2>Second factor</h2>
        {codes && <>
          <p>Keep these recovery codes where nobody else looks. Each logs in once where your app is lost; they are not shown again.</p>
          <Shell label="Recovery codes">{codes.join("\n")}</Shell>
        </>}
        {setup ? <>
          <p>Add this key to your authenticator app (<a href={setup.uri}>open it on this device</a>), then type what the app shows.</p>
          <Shell label="The key">{setup.secret}</Shell>
          <TextInput label="Code" required value={code} autoComplete="one-time-code" onChange={(event) => setCode(event.currentTarget.value)} />
        </> : <>
          <p>{inForce ? `In force; ${left} recovery codes are left.` : "Not set up: whoever learns your password gets in."}</p>
          <PasswordInput label="Your password" required value={password} autoComplete="current-password" onChange={(event) => setPassword(event.currentTarget.value)} visibilityToggleButtonProps={toggle} />
        </>}
        <Problem error={error} />
        <Group><Button type="submit" variant={inForce && !setup ? "default" : "filled"}>{setup ? "Put it in force" : inForce ? "Remove it" : "Set it up"}</Button></Group>
      </Stack>
    </form>
  );
}

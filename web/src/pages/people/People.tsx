// People: accounts, what each may do, who is logged in.
import { Button, Group, NativeSelect, PasswordInput, Skeleton, Stack, TextInput } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api, body, Refusal, type Schema } from "../../api/client";
import { Ago } from "../../parts/Ago";
import { Confirm } from "../../parts/Confirm";
import { Dialog } from "../../parts/Dialog";
import { Page } from "../../parts/Page";
import { NameGroup } from "../../parts/Groups";
import { Problem } from "../../parts/Problem";
import { Shell } from "../../parts/Shell";
import { Mark } from "../../parts/State";
import { whole } from "../../parts/words";

type Role = Schema["Role"];
type User = Schema["User"];
type Act = "disable" | "enable" | "password" | "factor" | "remove";

const ROLES: { value: Role; label: string }[] = [
  { value: "viewer", label: "viewer: looks" },
  { value: "operator", label: "operator: looks, pauses, verifies, switches" },
  { value: "administrator", label: "administrator: everything" },
  { value: "auditor", label: "auditor: looks, also at the audit" },
  { value: "billing", label: "billing: looks, and bills" },
  { value: "user", label: "user: sees one mailbox" },
];
const QUESTIONS: Record<Act, { act: string; text: string }> = {
  disable: { act: "Disable", text: "The account opens nothing any more, and its sessions end. It can be enabled again." },
  enable: { act: "Enable", text: "The account opens again, with its old password." },
  password: { act: "Make a new password", text: "The old one is worthless at once, and the account's sessions end. The new one is shown once." },
  factor: { act: "Reset", text: "The account logs in with its password alone until its owner sets up a second factor again. Make sure that it is its owner who asks." },
  remove: { act: "Remove", text: "The account is gone, and its sessions end. What it did stays in the audit." },
};

export default function People() {
  const users = useQuery({
    queryKey: ["users"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/users", { params: { query: { limit: 1000 } }, signal })).items,
  });
  const [making, setMaking] = useState(false);
  const [asked, setAsked] = useState<{ user: User; act: Act } | null>(null);
  return (
    <Page title="People" about="Who may log in, and what each may do. Programs get tokens instead."
      actions={<Button onClick={() => setMaking(true)}>Add somebody</Button>}>
      {users.error ? <Problem error={users.error} /> : null}
      {!users.data && !users.error && <Skeleton h={160} />}
      {users.data && (
        <div className="card scroll" tabIndex={0} role="region" aria-label="Accounts">
          <table className="plain">
            <thead><tr><th scope="col">Name</th><th scope="col">Role</th><th scope="col" className="wide">For</th><th scope="col">Second factor</th><th scope="col">Last log-in</th><th scope="col">State</th><th scope="col"><span className="hidden">Actions</span></th></tr></thead>
            <tbody>
              {users.data.map((user) => (
                <tr key={user.name}>
                  <td className="break">{user.name}</td><td>{user.role}</td><td className="wide break">{user.group ?? user.mailbox ?? "everything"}</td>
                  <td>{user.second_factor ? "yes" : "no"}</td><td><Ago time={user.last_login_at} /></td>
                  <td>{user.disabled_at ? <Mark tone="still" icon="✕">disabled</Mark> : <Mark tone="good" icon="✓">active</Mark>}</td>
                  <td className="right">
                    <NativeSelect size="xs" aria-label={`Change ${user.name}`} value="" onChange={(event) => setAsked({ user, act: event.currentTarget.value as Act })}
                      data={[{ value: "", label: "Change…" }, { value: "password", label: "New password" }, ...(user.second_factor ? [{ value: "factor", label: "Reset second factor" }] : []),
                        user.disabled_at ? { value: "enable", label: "Enable" } : { value: "disable", label: "Disable" }, { value: "remove", label: "Remove" }]} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
          {users.data.length === 0 && <p className="quiet">None yet. Without one, people need a token.</p>}
        </div>
      )}
      <Sessions />
      {making && <Make onClose={() => setMaking(false)} />}
      {asked && <Change {...asked} onClose={() => setAsked(null)} />}
    </Page>
  );
}

function Sessions() {
  const client = useQueryClient();
  const { data, error } = useQuery({
    queryKey: ["sessions"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/sessions", { params: { query: { all: true } }, signal })).items,
    refetchInterval: 10_000,
  });
  const end = (id: string) => void api.DELETE("/api/v1/sessions/{id}", { params: { path: { id } } })
    .catch(() => undefined).then(() => client.invalidateQueries({ queryKey: ["sessions"] }));
  return (
    <section aria-labelledby="sessions">
      <h2 id="sessions">Logged in now</h2>
      <Problem error={error} />
      <div className="card scroll" tabIndex={0} role="region" aria-label="Sessions">
        <table className="plain">
          <thead><tr><th scope="col">Name</th><th scope="col">From</th><th scope="col" className="wide">Browser</th><th scope="col">Last seen</th><th scope="col"><span className="hidden">Actions</span></th></tr></thead>
          <tbody>
            {data?.map((session) => (
              <tr key={session.session_id}>
                <td className="break">{session.user}{session.is_own && <span className="quiet"> (this browser)</span>}</td><td>{session.address}</td>
                <td className="wide small break">{session.agent}</td><td><Ago time={session.seen_at} /></td>
                <td className="right">{!session.is_own && <Button size="compact-sm" variant="default" aria-label={`End the session of ${session.user}`} onClick={() => end(session.session_id)}>End</Button>}</td>
              </tr>
            ))}
          </tbody>
        </table>
        {data?.length === 0 && <p className="quiet">Nobody. Tokens and the local socket have no sessions.</p>}
      </div>
    </section>
  );
}

function Make({ onClose }: { onClose: () => void }) {
  const client = useQueryClient();
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("operator");
  const [group, setGroup] = useState("");
  const [mailbox, setMailbox] = useState("");
  const [password, setPassword] = useState("");
  const [error, setError] = useState<unknown>(null);
  const [made, setMade] = useState<string | null>(null);
  const wrong = (pointer: string) => {
    const found = error instanceof Refusal ? error.problem.errors?.find((item) => item.pointer === pointer) : undefined;
    return found ? whole(found.detail) : undefined;
  };
  const narrows = role === "viewer" || role === "operator";

  async function make(event: FormEvent) {
    event.preventDefault();
    setError(null);
    try {
      const answer = body(await api.POST("/api/v1/users", {
        body: { name: name.trim(), role, password: password || null, group: narrows && group.trim() ? group.trim() : null, mailbox: role === "user" ? mailbox.trim() : null },
      }));
      void client.invalidateQueries({ queryKey: ["users"] });
      if (answer.password) setMade(answer.password);
      else onClose();
    } catch (problem) {
      setError(problem);
    }
  }

  if (made !== null) return <Shown name={name.trim()} password={made} onClose={onClose} />;
  return (
    <Dialog onClose={onClose} title="Add somebody">
      <form onSubmit={make}>
        <Stack gap="sm">
          <TextInput label="Name" description="What the person logs in with, such as a mail address." required value={name} autoComplete="off" data-autofocus
            onChange={(event) => setName(event.currentTarget.value)} error={wrong("/name")} />
          <NativeSelect label="Role" value={role} onChange={(event) => setRole(event.currentTarget.value as Role)} data={ROLES} />
          {narrows && <NameGroup label="Group" description="Only the mailboxes of this group; empty for all." value={group} onChange={setGroup} error={wrong("/group")} />}
          {role === "user" && <TextInput label="Mailbox" required value={mailbox} onChange={(event) => setMailbox(event.currentTarget.value)} error={wrong("/mailbox")} />}
          <PasswordInput label="Password" description="Leave it empty to have one made." value={password} autoComplete="new-password" error={wrong("/password")}
            onChange={(event) => setPassword(event.currentTarget.value)} visibilityToggleButtonProps={{ "aria-label": "Show the password", tabIndex: 0 }} />
          {!["/name", "/group", "/mailbox", "/password"].some(wrong) && <Problem error={error} />}
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>Cancel</Button><Button type="submit">Add</Button></Group>
        </Stack>
      </form>
    </Dialog>
  );
}

function Shown({ name, password, onClose }: { name: string; password: string; onClose: () => void }) {
  return (
    <Dialog onClose={onClose} title={`Password of ${name}`} sticky>
      <Stack gap="sm">
        <p>Hand it over now: it cannot be shown again. Its owner can choose another one after logging in.</p>
        <Shell label="The password">{password}</Shell>
        <Group justify="flex-end"><Button onClick={onClose}>I have copied it</Button></Group>
      </Stack>
    </Dialog>
  );
}

function Change({ user, act, onClose }: { user: User; act: Act; onClose: () => void }) {
  const client = useQueryClient();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const [made, setMade] = useState<string | null>(null);
  const path = { params: { path: { name: user.name } } };

  async function change(reason: string) {
    setBusy(true);
    // A header carries no other letters.
    const headers = reason ? { "Understudy-Reason": reason.replace(/[^\x20-\x7e]/g, "?") } : {};
    try {
      if (act === "remove") await api.DELETE("/api/v1/users/{name}", { ...path, headers });
      else if (act === "factor") await api.POST("/api/v1/users/{name}/reset-second-factor", { ...path, headers });
      else if (act === "password") setMade(body(await api.POST("/api/v1/users/{name}/password", { ...path, headers, body: {} })).password ?? "");
      else await api.PATCH("/api/v1/users/{name}", { ...path, headers, body: { disabled: act === "disable" } });
      await client.invalidateQueries({ queryKey: ["users"] });
      if (act !== "password") onClose();
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  }

  if (made !== null) return <Shown name={user.name} password={made} onClose={onClose} />;
  return (
    <Confirm title={`${QUESTIONS[act].act}: ${user.name}?`} act={QUESTIONS[act].act} danger={act === "remove"} busy={busy} error={error} onClose={onClose} onAct={(reason) => void change(reason)}>
      <p>{QUESTIONS[act].text}</p>
    </Confirm>
  );
}

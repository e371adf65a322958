// API tokens: who may do what, made here, shown once, ended here.
import { Button, Group, NativeSelect, Skeleton, Stack, TextInput } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { Dialog } from "../../parts/Dialog";
import { api, body, Refusal, type Schema, type Token } from "../../api/client";
import { Ago, useNow } from "../../parts/Ago";
import { Confirm } from "../../parts/Confirm";
import { Page } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { Shell } from "../../parts/Shell";
import { Mark } from "../../parts/State";
import { whole } from "../../parts/words";

type Role = Schema["Role"];

const ROLES: { value: Role; label: string }[] = [
  { value: "viewer", label: "viewer: looks" },
  { value: "operator", label: "operator: looks, pauses, verifies, switches" },
  { value: "administrator", label: "administrator: everything" },
  { value: "auditor", label: "auditor: looks, also at the audit" },
  { value: "billing", label: "billing: looks, and bills" },
];
const LIVES = [["30", "30 days"], ["90", "90 days"], ["365", "a year"], ["", "for ever"]] as const;

export default function Tokens() {
  const { data: tokens, error, refetch } = useQuery({
    queryKey: ["tokens"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/tokens", { params: { query: { limit: 1000 } }, signal })).items,
  });
  const [making, setMaking] = useState(false);
  const [ending, setEnding] = useState<Token | null>(null);
  const forbidden = error instanceof Refusal && error.status === 403;
  return (
    <Page title="Tokens" about="A token stands for a person's browser or a program. Its secret is shown once, when it is made."
      actions={!forbidden && <Button onClick={() => setMaking(true)}>Make a token</Button>}>
      {error ? <Problem error={error} retry={forbidden ? undefined : () => void refetch()} /> : null}
      {!tokens && !error && <Skeleton h={160} />}
      {tokens && (
        <div className="card scroll" tabIndex={0} role="region" aria-label="Tokens">
          <table className="plain">
            <thead><tr><th scope="col">Name</th><th scope="col">Role</th><th scope="col">State</th><th scope="col" className="wide">Made</th><th scope="col">Last used</th><th scope="col"><span className="hidden">Actions</span></th></tr></thead>
            <tbody>
              {tokens.map((token) => (
                <tr key={token.name}>
                  <td>{token.name}</td><td>{token.role}</td><td><TokenMark token={token} /></td>
                  <td className="wide"><Ago time={token.created_at} /></td><td><Ago time={token.last_used_at} /></td>
                  <td className="right">{!token.revoked_at && <Button size="compact-sm" variant="default" aria-label={`Revoke ${token.name}`} onClick={() => setEnding(token)}>Revoke…</Button>}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {tokens.length === 0 && <p className="quiet">None yet. Whoever may open the local socket needs none.</p>}
        </div>
      )}
      {making && <Make onClose={() => setMaking(false)} />}
      {ending && <End token={ending} onClose={() => setEnding(null)} />}
    </Page>
  );
}

function TokenMark({ token }: { token: Token }) {
  const now = useNow();
  if (token.revoked_at) return <Mark tone="still" icon="✕">revoked</Mark>;
  if (token.expires_at && Date.parse(token.expires_at) <= now) return <Mark tone="wait" icon="!">expired</Mark>;
  return <><Mark tone="good" icon="✓">valid</Mark>{token.expires_at && <span className="quiet small"> until {new Date(token.expires_at).toLocaleDateString()}</span>}</>;
}

function Make({ onClose }: { onClose: () => void }) {
  const client = useQueryClient();
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("viewer");
  const [days, setDays] = useState("90");
  const [error, setError] = useState<unknown>(null);
  const [secret, setSecret] = useState<string | null>(null);
  const wrong = error instanceof Refusal ? error.problem.errors?.find((item) => item.pointer === "/name") : undefined;

  async function make(event: FormEvent) {
    event.preventDefault();
    setError(null);
    try {
      const expires_at = days ? new Date(Date.now() + Number(days) * 86_400_000).toISOString() : undefined;
      const made = body(await api.POST("/api/v1/tokens", { body: { name: name.trim(), role, expires_at } }));
      setSecret(made.token ?? "");
      void client.invalidateQueries({ queryKey: ["tokens"] });
    } catch (problem) {
      setError(problem);
    }
  }

  if (secret !== null) {
    return (
      <Dialog onClose={onClose} title={`Token ${name.trim()}`} sticky>
        <Stack gap="sm">
          <p>Copy it now: it is kept as a digest and cannot be shown again.</p>
          <Shell label="The token">{secret}</Shell>
          <Group justify="flex-end"><Button onClick={onClose}>I have copied it</Button></Group>
        </Stack>
      </Dialog>
    );
  }
  return (
    <Dialog onClose={onClose} title="Make a token">
      <form onSubmit={make}>
        <Stack gap="sm">
          <TextInput label="Name" description="What it is for; must be new." required value={name} onChange={(event) => setName(event.currentTarget.value)} autoComplete="off" data-autofocus
            error={wrong ? whole(wrong.detail) : undefined} />
          <NativeSelect label="Role" value={role} onChange={(event) => setRole(event.currentTarget.value as Role)} data={ROLES} />
          <NativeSelect label="Valid" value={days} onChange={(event) => setDays(event.currentTarget.value)} data={LIVES.map(([value, label]) => ({ value, label }))} />
          {!wrong && <Problem error={error} />}
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>Cancel</Button><Button type="submit">Make it</Button></Group>
        </Stack>
      </form>
    </Dialog>
  );
}

function End({ token, onClose }: { token: Token; onClose: () => void }) {
  const client = useQueryClient();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  return (
    <Confirm title={`Revoke ${token.name}?`} act="Revoke" danger busy={busy} error={error} onClose={onClose} onAct={() => {
      setBusy(true);
      api.DELETE("/api/v1/tokens/{name}", { params: { path: { name: token.name } } })
        .then(() => client.invalidateQueries({ queryKey: ["tokens"] }))
        .then(onClose)
        .catch((problem: unknown) => {
          setBusy(false);
          setError(problem);
        });
    }}>
      <p>Whoever uses it is locked out at once, this browser included if it is its own. It cannot be taken back; make another one instead.</p>
    </Confirm>
  );
}

// One policy: how it is, to be changed or written anew.
import { Button, Checkbox, Group, NativeSelect, NumberInput, Skeleton, Stack, Textarea } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { useNavigate, useParams } from "react-router";
import { api, body, Refusal } from "../../api/client";
import { Confirm } from "../../parts/Confirm";
import { Card, Page } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { mailboxes, whole } from "../../parts/words";
import { AutomaticMark } from "./Policies";
import { type Automatic, BUILT_IN, type Document, documentOf, textOf, withText } from "./document";

const SWITCHOVER: { value: Automatic; label: string }[] = [
  { value: "off", label: "off: nothing is done by itself" },
  { value: "shadow", label: "shadow: what would have been done is recorded" },
  { value: "on", label: "on: users are moved by themselves" },
];

export default function PolicyPage() {
  const { name = "" } = useParams();
  const { data, error, refetch } = useQuery({
    queryKey: ["policy", name],
    queryFn: async ({ signal }) => {
      try {
        const policy = body(await api.GET("/api/v1/policies/{name}", { params: { path: { name } }, signal }));
        return { mailboxes: policy.mailboxes, isNew: false, document: documentOf(policy.document) };
      } catch (problem) {
        if (problem instanceof Refusal && problem.status === 404) return { mailboxes: 0, isNew: true, document: BUILT_IN };
        throw problem;
      }
    },
  });
  const about = data && (data.isNew ? "It is not there yet: it begins with what is built in." : `${mailboxes(data.mailboxes)} ${data.mailboxes === 1 ? "has" : "have"} it.`);
  return (
    <Page title={name} tab={`Policy ${name}`} above={["/policies", "Policies"]} mark={data && <AutomaticMark automatic={data.document.switchover} />} about={about}
      actions={data && !data.isNew && <Remove name={name} />}>
      {error ? <Problem error={error} retry={() => void refetch()} /> : null}
      {data ? <Edit key={name} name={name} known={data.document} concerned={data.mailboxes} /> : error ? null : <Skeleton h={240} />}
    </Page>
  );
}

function Edit({ name, known, concerned }: { name: string; known: Document; concerned: number }) {
  const client = useQueryClient();
  const [document, setDocument] = useState(known);
  const [text, setText] = useState(textOf(known));
  const [error, setError] = useState<unknown>(null);
  const [broken, setBroken] = useState("");
  const [asking, setAsking] = useState<Document | null>(null);
  const [busy, setBusy] = useState(false);
  const [kept, setKept] = useState(false);
  const set = (change: Partial<Document>) => {
    setKept(false);
    setDocument((now) => ({ ...now, ...change }));
  };
  const items = error instanceof Refusal ? (error.problem.errors ?? []) : [];
  const FIELDS = ["/switchover", "/threshold_seconds", "/hold_down_seconds", "/quorum", "/max_loss", "/switchback", "/priority"];
  const wrong = (pointer: string) => {
    const item = items.find((one) => one.pointer === pointer);
    return item && whole(item.detail);
  };
  const elsewhere = items.filter((item) => !item.pointer || !FIELDS.includes(item.pointer)).map((item) => whole(`${item.pointer ? `${item.pointer}: ` : ""}${item.detail}`)).join(" ");
  const number = (member: "threshold_seconds" | "hold_down_seconds" | "quorum" | "priority", label: string, description: string) => (
    <NumberInput label={label} description={description} value={document[member]} onChange={(value) => set({ [member]: Number(value) })} error={wrong(`/${member}`)} hideControls required />
  );

  async function write(wanted: Document) {
    setBusy(true);
    setError(null);
    try {
      await api.PUT("/api/v1/policies/{name}", { params: { path: { name } }, body: wanted as never });
      setKept(true);
      for (const key of [["policies"], ["policy", name]]) void client.invalidateQueries({ queryKey: key });
    } catch (problem) {
      setError(problem);
    }
    setAsking(null);
    setBusy(false);
  }

  function keep(event: FormEvent) {
    event.preventDefault();
    setKept(false);
    setBroken("");
    let wanted: Document;
    try {
      wanted = withText(document, text);
    } catch (problem) {
      setBroken(`This is not JSON: ${problem instanceof Error ? problem.message : String(problem)}`);
      return;
    }
    // Users who are moved by themselves from now on are worth a question.
    if (wanted.switchover === "on" && known.switchover !== "on" && concerned > 0) setAsking(wanted);
    else void write(wanted);
  }

  return (
    <form className="stack" style={{ maxWidth: "46rem" }} onSubmit={keep}>
      <Card title="When a primary is down">
        <NativeSelect label="Switchover by itself" data={SWITCHOVER} value={document.switchover} onChange={(event) => set({ switchover: event.currentTarget.value as Automatic })} error={wrong("/switchover")} />
        {number("threshold_seconds", "Silent for so many seconds", "A shorter silence is none.")}
        {number("quorum", "So many observers must find it down", "The recovery gateway, the source gateway and each witness are one.")}
        {number("hold_down_seconds", "Not moved again by itself for so many seconds", "After a change of side.")}
        <NumberInput label="Transactions that may be lost" description="Of one mailbox. Empty: any number." value={document.max_loss ?? ""} onChange={(value) => set({ max_loss: value === "" ? null : Number(value) })} error={wrong("/max_loss")} hideControls />
        <Checkbox label="Slow answers count as an outage too" checked={document.degradation !== null} onChange={(event) => set({ degradation: event.currentTarget.checked ? { latency_seconds: 5, seconds: 300 } : null })} />
        {document.degradation && (
          <Group gap="sm">
            <NumberInput label="Slower than so many seconds" value={document.degradation.latency_seconds} onChange={(value) => document.degradation && set({ degradation: { ...document.degradation, latency_seconds: Number(value) } })} hideControls />
            <NumberInput label="For so many seconds" value={document.degradation.seconds} onChange={(value) => document.degradation && set({ degradation: { ...document.degradation, seconds: Number(value) } })} hideControls />
          </Group>
        )}
      </Card>
      <Card title="Afterwards, and in general">
        <NativeSelect label="Home by itself" data={[{ value: "off", label: "off: a person brings mailboxes home" }, { value: "on", label: "on: once the primary has answered for that long" }]} value={document.switchback} onChange={(event) => set({ switchback: event.currentTarget.value as Document["switchback"] })} error={wrong("/switchback")} />
        {number("priority", "Priority", "Lower is moved, and served, earlier.")}
        <Textarea label="Maintenance, restart, hooks, brake" description="As JSON; what is taken out is as it was built in." autosize minRows={6} maxRows={20} value={text} spellCheck={false} error={broken || elsewhere || undefined}
          onChange={(event) => { setKept(false); setText(event.currentTarget.value); }} styles={{ input: { fontFamily: "var(--mantine-font-family-monospace)" } }} />
      </Card>
      {items.length === 0 && <Problem error={error} />}
      <Stack gap="xs"><Group><Button type="submit" loading={busy}>Keep the policy</Button><span role="status">{kept ? "Kept." : ""}</span></Group></Stack>
      {asking && (
        <Confirm title={`Move ${mailboxes(concerned)} by themselves?`} act="Keep it" busy={busy} onClose={() => setAsking(null)} onAct={() => void write(asking)}>
          <p>From now on, whoever has this policy is moved to the standby without a person, once their primary is found down. What the primary never shipped stays there until it is back.</p>
        </Confirm>
      )}
    </form>
  );
}

function Remove({ name }: { name: string }) {
  const navigate = useNavigate();
  const client = useQueryClient();
  const [asking, setAsking] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  return (
    <>
      <Button variant="default" onClick={() => setAsking(true)}>Remove…</Button>
      {asking && (
        <Confirm title={`Remove ${name}?`} act="Remove" danger busy={busy} error={error} onClose={() => setAsking(false)} onAct={() => {
          setBusy(true);
          api.DELETE("/api/v1/policies/{name}", { params: { path: { name } } })
            .then(() => {
              void client.invalidateQueries({ queryKey: ["policies"] });
              navigate("/policies");
            })
            .catch((problem: unknown) => {
              setBusy(false);
              setError(problem);
            });
        }}>
          <p>A policy that mailboxes have stays until they are given another one. The policy default, removed, is as it was built in.</p>
        </Confirm>
      )}
    </>
  );
}

// What people are told: in which words, who, when, and what became of each mail and hook.
import { Button, Checkbox, Group, NativeSelect, NumberInput, Skeleton, Stack, Textarea, TextInput } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useEffect, useState } from "react";
import { api, body, Refusal, type Schema } from "../../api/client";
import { POLL_MS } from "../../api/queries";
import { Ago } from "../../parts/Ago";
import { Card, Page } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { Mark } from "../../parts/State";
import { WordsShown } from "../../parts/Words";

type Template = Schema["NotificationTemplate"];

export default function Notifications() {
  return (
    <Page title="Notifications" about="Users are told of changes of side, administrators of what needs them. Mail leaves by the relays of the configuration.">
      <div className="stack">
        <Wishes />
        <Templates />
        <Deliveries />
      </div>
    </Page>
  );
}

function Wishes() {
  const client = useQueryClient();
  const { data, error } = useQuery({
    queryKey: ["notification-settings"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/notifications/settings", { signal })),
  });
  const [wishes, setWishes] = useState<Schema["NotificationSettings"] | null>(null);
  const [people, setPeople] = useState("");
  const [failure, setFailure] = useState<unknown>(null);
  const [kept, setKept] = useState(false);
  useEffect(() => {
    if (data && !wishes) {
      setWishes(data);
      setPeople(data.administrators.join("\n"));
    }
  }, [data, wishes]);

  async function keep(event: FormEvent) {
    event.preventDefault();
    if (!wishes) return;
    setFailure(null);
    setKept(false);
    const administrators = people.split(/[\s,;]+/).filter((address) => address !== "");
    try {
      await api.PUT("/api/v1/notifications/settings", { body: { ...wishes, administrators } });
      setKept(true);
      void client.invalidateQueries({ queryKey: ["notification-settings"] });
    } catch (problem) {
      setFailure(problem);
    }
  }

  const time = (value: string) => (value === "" ? null : value.length === 5 ? `${value}:00` : value);
  return (
    <Card title="Who is told, and when">
      <Problem error={error} />
      {wishes && (
        <form onSubmit={keep}>
          <Stack gap="sm">
            <Textarea label="Administrators" description="Mail addresses, one a line, besides those of the configuration." autosize minRows={2} value={people} onChange={(event) => setPeople(event.currentTarget.value)} />
            <Checkbox label="Tell users of changes of side" checked={wishes.notify_users} onChange={(event) => setWishes({ ...wishes, notify_users: event.currentTarget.checked })} />
            <Group gap="sm" align="flex-end">
              <NativeSelect label="Language" value={wishes.language} onChange={(event) => setWishes({ ...wishes, language: event.currentTarget.value })} data={[{ value: "en", label: "English" }, { value: "de", label: "German" }]} />
              <TextInput type="time" label="Quiet from" value={wishes.quiet_from?.slice(0, 5) ?? ""} onChange={(event) => setWishes({ ...wishes, quiet_from: time(event.currentTarget.value) })} />
              <TextInput type="time" label="Quiet to" value={wishes.quiet_to?.slice(0, 5) ?? ""} onChange={(event) => setWishes({ ...wishes, quiet_to: time(event.currentTarget.value) })} />
              <NumberInput label="Minutes ahead of UTC" value={wishes.utc_offset_minutes} onChange={(value) => setWishes({ ...wishes, utc_offset_minutes: Number(value) })} hideControls />
              <NumberInput label="Minutes collected in one mail" value={wishes.group_minutes} onChange={(value) => setWishes({ ...wishes, group_minutes: Number(value) })} hideControls />
              <NumberInput label="Mails an hour to one address" value={wishes.per_hour} onChange={(value) => setWishes({ ...wishes, per_hour: Number(value) })} hideControls />
            </Group>
            <Problem error={failure} />
            <Group><Button type="submit">Keep</Button><span role="status">{kept ? "Kept." : ""}</span></Group>
          </Stack>
        </form>
      )}
    </Card>
  );
}

function Templates() {
  const { data: templates, error } = useQuery({
    queryKey: ["templates"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/notifications/templates", { signal })).items,
  });
  const [topic, setTopic] = useState("switch_planned");
  const [language, setLanguage] = useState("en");
  const chosen = templates?.find((template) => template.topic === topic && template.language === language);
  const topics = [...new Set(templates?.map((template) => template.topic))];
  return (
    <Card title="Templates">
      <Problem error={error} />
      {!templates && !error && <Skeleton h={160} />}
      {templates && (
        <Group gap="sm" align="flex-end">
          <NativeSelect label="Topic" value={topic} onChange={(event) => setTopic(event.currentTarget.value)} data={topics.map((name) => ({ value: name, label: name.replaceAll("_", " ") }))} />
          <NativeSelect label="Language of the template" value={language} onChange={(event) => setLanguage(event.currentTarget.value)} data={[{ value: "en", label: "English" }, { value: "de", label: "German" }]} />
          {chosen && <Mark tone={chosen.own ? "busy" : "still"} icon={chosen.own ? "✎" : "·"}>{chosen.own ? "your own words" : "built in"}</Mark>}
        </Group>
      )}
      {chosen && <Words key={`${topic} ${language} ${chosen.own}`} template={chosen} />}
    </Card>
  );
}

function Words({ template }: { template: Template }) {
  const client = useQueryClient();
  const { topic, language } = template;
  const [subject, setSubject] = useState(template.subject);
  const [text, setText] = useState(template.text);
  const [html, setHtml] = useState(template.html);
  const [shown, setShown] = useState<Schema["Preview"] | null>(null);
  const [error, setError] = useState<unknown>(null);
  const path = { topic, language };
  const wrong = (pointer: string) => (error instanceof Refusal ? error.problem.errors?.find((item) => item.pointer === pointer)?.detail : undefined);

  const act = (what: () => Promise<unknown>) => {
    setError(null);
    setShown(null);
    what().catch(setError);
  };
  const preview = () => act(async () => setShown(body(await api.POST("/api/v1/notifications/preview", { body: { ...path, subject, text, html } }))));
  const keep = () => act(async () => {
    await api.PUT("/api/v1/notifications/templates/{topic}/{language}", { params: { path }, body: { subject, text, html } });
    await client.invalidateQueries({ queryKey: ["templates"] });
  });
  const back = () => act(async () => {
    await api.DELETE("/api/v1/notifications/templates/{topic}/{language}", { params: { path } });
    await client.invalidateQueries({ queryKey: ["templates"] });
  });

  const mono = { input: { fontFamily: "var(--mantine-font-family-monospace)" } };
  const errors = error instanceof Refusal && error.problem.errors?.length;
  return (
    <Stack gap="sm">
      <TextInput label="Subject" value={subject} onChange={(event) => setSubject(event.currentTarget.value)} error={wrong("/subject")} styles={mono} />
      <Textarea label="Text" autosize minRows={6} maxRows={16} value={text} onChange={(event) => setText(event.currentTarget.value)} error={wrong("/text")} styles={mono} spellCheck={false} />
      <Textarea label="HTML" autosize minRows={4} maxRows={16} value={html} onChange={(event) => setHtml(event.currentTarget.value)} error={wrong("/html")} styles={mono} spellCheck={false} />
      <p className="quiet small">Variables: {Object.keys(template.sample as object).map((name) => `{{ ${name} }}`).join(", ")}. One that is not there is refused.</p>
      {!errors && <Problem error={error} />}
      <Group>
        <Button variant="default" onClick={preview}>Preview</Button>
        <Button onClick={keep}>Keep these words</Button>
        {template.own && <Button variant="default" onClick={back}>Back to those built in</Button>}
      </Group>
      {shown && <WordsShown words={shown} />}
    </Stack>
  );
}

function Deliveries() {
  const [recipient, setRecipient] = useState("");
  const { data: items, error } = useQuery({
    queryKey: ["deliveries", recipient],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/notifications/deliveries", { params: { query: { limit: 100, recipient: recipient || undefined } }, signal })).items,
    refetchInterval: POLL_MS,
  });
  return (
    <Card title="Delivery log">
      <Problem error={error} />
      <TextInput label="Recipient" description="A part of the address." value={recipient} onChange={(event) => setRecipient(event.currentTarget.value)} />
      {items && (
        <div className="scroll" tabIndex={0} role="region" aria-label="Delivery log, newest first">
          <table className="plain">
            <thead><tr><th scope="col">When</th><th scope="col">To</th><th scope="col">Subject</th><th scope="col">State</th><th scope="col" className="wide">Answer</th></tr></thead>
            <tbody>
              {items.map((item) => (
                <tr key={item.message_id}>
                  <td><Ago time={item.created_at} /></td><td>{item.recipient}</td><td>{item.subject || item.topic}</td>
                  <td><DeliveryMark item={item} /></td>
                  <td className="wide quiet small">{item.via ? `${item.via}: ${item.answer ?? ""}` : "–"}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {items.length === 0 && <p className="quiet">Nothing was sent yet.</p>}
        </div>
      )}
    </Card>
  );
}

function DeliveryMark({ item }: { item: Schema["Delivery"] }) {
  if (item.state === "sent") return <Mark tone="good" icon="✓">sent</Mark>;
  if (item.state === "failed") return <Mark tone="bad" icon="✕">failed</Mark>;
  return <Mark tone="wait" icon="…">{item.attempts > 0 ? `waiting, tried ${item.attempts} times` : "waiting"}</Mark>;
}

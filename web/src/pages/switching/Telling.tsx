// Whether users are told of a change of side, in which words; and telling them ahead.
import { Button, Checkbox, Skeleton, TextInput } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "react-router";
import { api, body } from "../../api/client";
import { Problem } from "../../parts/Problem";
import { mailboxes } from "../../parts/words";
import { WordsShown } from "../../parts/Words";
import type { Target } from "./look";
import type { Mode } from "./request";
import type { Scope } from "./Scopes";

interface TellingProps {
  target: Target;
  mode: Mode;
  scope: Scope;
  reason: string;
  notify: boolean;
  onNotify: (notify: boolean) => void;
}

/** What users are sent, before and after. */
function topics(target: Target, mode: Mode): [string, string][] {
  if (target === "primary") return [["switchback_planned", "Before"], ["switchback_done", "After"]];
  return mode === "emergency" ? [["switch_emergency", "After"]] : [["switch_planned", "Before"], ["switch_done", "After"]];
}

export function Telling({ target, mode, scope, reason, notify, onNotify }: TellingProps) {
  const { data: wishes, error } = useQuery({
    queryKey: ["notification-settings"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/notifications/settings", { signal })),
  });
  if (error) return <Problem error={error} />;
  if (!wishes) return <Skeleton h={60} />;
  if (!wishes.notify_users) return <p className="quiet">Users are not told of changes of side: the <Link to="/notifications">notifications</Link> say so.</p>;
  return (
    <>
      <Checkbox label="Tell the users by mail" description="At their mailbox and at their alternate address, where they have one." checked={notify} onChange={(event) => onNotify(event.currentTarget.checked)} />
      {notify && (
        <details className="small">
          <summary>What they read</summary>
          <div className="stack tight">
            {topics(target, mode).map(([topic, when]) => <Sample key={topic} topic={topic} when={when} language={wishes.language} />)}
            <p className="quiet">With sample data; the reason is the one given below. <Link to="/notifications">Change the words</Link>.</p>
          </div>
        </details>
      )}
      {target === "standby" && mode === "planned" && (scope.by === "server" || scope.by === "group" || scope.by === "all") && <Ahead scope={scope} reason={reason} language={wishes.language} />}
    </>
  );
}

function Sample({ topic, when, language }: { topic: string; when: string; language: string }) {
  const { data: words, error } = useQuery({
    queryKey: ["preview", topic, language],
    queryFn: async ({ signal }) => body(await api.POST("/api/v1/notifications/preview", { body: { topic, language }, signal })),
  });
  if (error) return <Problem error={error} />;
  return words ? <WordsShown words={words} label={when} /> : <Skeleton h={80} />;
}

/** Tells the users that it will happen, some time before it does. */
function Ahead({ scope, reason, language }: { scope: Scope; reason: string; language: string }) {
  const [at, setAt] = useState("");
  const [told, setTold] = useState<number | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  async function announce() {
    setBusy(true);
    setError(null);
    try {
      const which = scope.by === "server" ? { server: scope.server } : scope.by === "group" ? { group: scope.group.trim() } : {};
      const { mailboxes: number } = body(await api.POST("/api/v1/notifications/announcements", { body: { ...which, starts_at: at.trim(), reason: reason.trim() } }));
      setTold(number);
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  }
  return (
    <details className="small">
      <summary>Tell them ahead</summary>
      <div className="stack tight">
        <p>For a switchover some time from now. Nothing is moved by it.</p>
        <div className="row" style={{ alignItems: "flex-end" }}>
          <TextInput label="When it will begin" description="In the words that users read." placeholder="Saturday, 28 November, 22:00" value={at} onChange={(event) => { setAt(event.currentTarget.value); setTold(null); }} />
          <Button variant="default" loading={busy} disabled={at.trim() === "" || told !== null} onClick={() => void announce()}>Tell them</Button>
        </div>
        <p role="status">{told !== null && `The users of ${mailboxes(told)} are being told.`}</p>
        <Problem error={error} />
        <Sample topic="switch_announced" when="Ahead" language={language} />
      </div>
    </details>
  );
}

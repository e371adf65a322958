// Changing sides, in a few questions on one page: which mailboxes, how, and whether what will happen is meant. Then the run is
// followed on its own page.
import { Button, Radio, Skeleton, Textarea, TextInput } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { useNavigate, useSearchParams } from "react-router";
import { useCan } from "../../api/abilities";
import { api, body, type Mailbox } from "../../api/client";
import { useRuns, useServers } from "../../api/queries";
import { Card, Page } from "../../parts/Page";
import { runPath } from "../../parts/paths";
import { Problem } from "../../parts/Problem";
import { RunList } from "../../parts/RunList";
import { keptSelection } from "../../parts/selection";
import { Shell } from "../../parts/Shell";
import { mailboxes } from "../../parts/words";
import { every } from "../mailboxes/useMailboxes";
import { Consequences } from "./Consequences";
import { look, type Target } from "./look";
import { begin, type Mode, selectorBody } from "./request";
import { type Scope, Scopes } from "./Scopes";
import { Telling } from "./Telling";

/** Above this, the number has to be typed even for a planned change. */
const MANY = 20;

const WORDS = {
  standby: { title: "Switchover", verb: "Switch over", to: "the standby", operation: "POST /api/v1/switchovers", command: "switchover", kind: "switchover",
    about: "Moves users to the standby: log-ins go there, and what they do there is captured for the way back." },
  primary: { title: "Switchback", verb: "Switch back", to: "the primary", operation: "POST /api/v1/switchbacks", command: "switchback", kind: "switchback",
    about: "Brings users back to the primary: only what changed on the standby is carried over, verified, then log-ins go back." },
} as const;

export function Wizard({ target }: { target: Target }) {
  const can = useCan();
  const wording = WORDS[target];
  const able = can(wording.operation);
  return (
    <Page title={wording.title} about={wording.about}>
      {able === undefined && <Skeleton h={240} />}
      {able === false && (
        <div className="note wait" role="status">
          <p>This Understudy cannot change sides yet: its API has no <code>{wording.operation}</code>. <strong>Update it, then come back.</strong></p>
        </div>
      )}
      {able && <Questions key={target} target={target} />}
    </Page>
  );
}

function scopeOf(search: URLSearchParams): Scope {
  const address = search.get("address");
  if (address) return { by: "one", address, primary: search.get("primary") ?? undefined };
  const selection = search.get("chosen") ? keptSelection() : null;
  if (selection) return { by: "chosen", selection };
  return { by: "server", server: search.get("server") ?? "" };
}

async function among(scope: Scope, signal: AbortSignal): Promise<Mailbox[]> {
  const filter = scope.by === "server" ? { server: scope.server } : scope.by === "group" ? { group: scope.group } : {};
  if (scope.by === "one") {
    return [body(await api.GET("/api/v1/mailboxes/{address}", { params: { path: { address: scope.address }, query: { primary: scope.primary } }, signal }))];
  }
  const found: Mailbox[] = [];
  for await (const page of every(scope.by === "chosen" && scope.selection.primary ? { server: scope.selection.primary } : filter, signal)) found.push(...page);
  if (scope.by !== "chosen") return found;
  const wanted = new Set(scope.selection.addresses);
  return found.filter((mailbox) => wanted.has(mailbox.address));
}

function isComplete(scope: Scope): boolean {
  return scope.by === "server" ? scope.server !== "" : scope.by === "group" ? scope.group.trim() !== "" : scope.by !== "one" || scope.address.trim() !== "";
}

function Questions({ target }: { target: Target }) {
  const wording = WORDS[target];
  const navigate = useNavigate();
  const [search] = useSearchParams();
  const { data: servers } = useServers();
  const [scope, setScope] = useState<Scope>(() => scopeOf(search));
  const [mode, setMode] = useState<Mode>("planned");
  const [reason, setReason] = useState("");
  const [typed, setTyped] = useState("");
  const [notify, setNotify] = useState(true);
  const [maxLoss, setMaxLoss] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const complete = isComplete(scope);
  const found = useQuery({
    queryKey: ["mailboxes", "switching", scope],
    enabled: complete,
    queryFn: ({ signal }) => among(scope, signal),
  });
  const seen = found.data ? look(found.data, target) : null;
  const total = seen?.moved.length ?? 0;
  const asksNumber = mode === "emergency" || total > MANY;
  const most = maxLoss.trim() === "" ? null : Number(maxLoss);
  const sound = most === null || (Number.isInteger(most) && most >= 0);
  const ready = total > 0 && sound && (!asksNumber || typed.trim() === String(total)) && !found.isError;

  async function start(dryRun: boolean) {
    setBusy(true);
    setError(null);
    try {
      const run = await begin(target, { selector: selectorBody(scope, seen?.moved ?? []), mode, maxLoss: most, reason: reason.trim(), dryRun, notify });
      navigate(runPath(run.run_id));
    } catch (problem) {
      setError(problem);
      setBusy(false);
    }
  }

  return (
    <form className="stack" style={{ maxWidth: "52rem" }} onSubmit={(event: FormEvent) => {
      event.preventDefault();
      if (ready) void start(false);
    }}>
      <Card title="1. Which mailboxes">
        <Scopes scope={scope} onScope={(next) => { setScope(next); setTyped(""); }} servers={servers ?? []} target={target} kept={search.get("chosen") ? keptSelection() : null} />
      </Card>
      {target === "standby" && (
        <Card title="2. How">
          <Radio.Group value={mode} onChange={(value) => { setMode(value as Mode); setTyped(""); }} aria-label="How">
            <div className="stack tight">
              <Radio value="planned" label="Planned" description="Loses nothing: waits until everything is on the standby, and moves nobody for whom that cannot be had." />
              <Radio value="emergency" label="Emergency" description="For when the primary is gone: does not wait for it, and moves users to what the standby has. Changes not yet received may be missing there until the primary is back." />
            </div>
          </Radio.Group>
          {mode === "emergency" && (
            <TextInput label="At most so many transactions may be lost of a mailbox" description="Left empty: any number. A mailbox that would lose more is not moved." inputMode="numeric" style={{ maxWidth: "28rem" }}
              value={maxLoss} onChange={(event) => setMaxLoss(event.currentTarget.value)} error={sound ? undefined : "A whole number, or nothing."} autoComplete="off" />
          )}
        </Card>
      )}
      <Card title={target === "standby" ? "3. What will happen" : "2. What will happen"}>
        <Problem error={found.error} />
        {!complete && <p className="quiet">Say which mailboxes above.</p>}
        {complete && found.isPending && <p className="quiet" role="status">Looking at the mailboxes…</p>}
        {seen && <Consequences seen={seen} target={target} mode={mode} servers={servers ?? []} />}
        {total > 0 && (
          <>
            <Telling target={target} mode={mode} scope={scope} reason={reason} notify={notify} onNotify={setNotify} />
            <Textarea label="Reason" description="For the record, and for the users who are told." autosize minRows={2} value={reason} onChange={(event) => setReason(event.currentTarget.value)} />
            {asksNumber && <TextInput label={`Type ${total} to go on`} value={typed} onChange={(event) => setTyped(event.currentTarget.value)} autoComplete="off" style={{ maxWidth: "16rem" }} />}
          </>
        )}
        <Problem error={error} />
        <div className="row">
          <Button type="submit" loading={busy} disabled={!ready} color={mode === "emergency" ? "red" : undefined}>
            {total === 0 ? wording.verb : `${wording.verb} ${mailboxes(total)}${mode === "emergency" ? " now" : ""}`}
          </Button>
          {target === "primary" && <Button variant="default" disabled={total === 0 || busy} onClick={() => void start(true)}>Only say what would change</Button>}
        </div>
        <details className="small"><summary>The same in a terminal</summary><Shell label={`${wording.title} in a terminal`}>{command(wording.command, scope, mode)}</Shell></details>
      </Card>
      <Earlier kind={wording.kind} title={wording.title} />
    </form>
  );
}

function command(name: string, scope: Scope, mode: Mode): string {
  const which = scope.by === "one" ? scope.address : scope.by === "server" ? `--server ${scope.server || "NAME"}` : scope.by === "group" ? `--group ${scope.group || "NAME"}`
    : scope.by === "all" ? "--all" : scope.selection.addresses.slice(0, 3).join(" ") + (scope.selection.addresses.length > 3 ? " …" : "");
  return `understudy ${name} ${which}${mode === "emergency" ? " --mode emergency" : ""} --wait`;
}

function Earlier({ kind, title }: { kind: string; title: string }) {
  const { data } = useRuns({ kind }, 5);
  const runs = data?.pages[0]?.items ?? [];
  return runs.length > 0 ? <Card title={`${title}s so far`}><RunList runs={runs} /></Card> : null;
}

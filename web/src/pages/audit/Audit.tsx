// The audit: who did what, why, what was there before and after; and whether the record is whole.
import { Button, Group, Skeleton, TextInput } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { useState } from "react";
import { useSearchParams } from "react-router";
import { api, body, type Schema } from "../../api/client";
import { Ago } from "../../parts/Ago";
import { Page } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { download } from "../billing/download";

type Verdict = Schema["AuditVerdict"];

export default function Audit() {
  const [params, setParams] = useSearchParams();
  const filter = Object.fromEntries(["who", "action", "subject"].map((name) => [name, params.get(name) || undefined]));
  const { data, error, hasNextPage, fetchNextPage } = useInfiniteQuery({
    queryKey: ["audit", filter],
    initialPageParam: undefined as string | undefined,
    queryFn: async ({ pageParam, signal }) => body(await api.GET("/api/v1/audit", { params: { query: { ...filter, limit: 100, after: pageParam } }, signal })),
    getNextPageParam: (page) => page.next ?? undefined,
  });
  const entries = data?.pages.flatMap((page) => page.items);
  const field = (name: string, label: string, example: string) => (
    <TextInput label={label} placeholder={example} value={params.get(name) ?? ""} onChange={(event) => {
      const next = new URLSearchParams(params);
      if (event.currentTarget.value) next.set(name, event.currentTarget.value);
      else next.delete(name);
      setParams(next, { replace: true });
    }} />
  );
  return (
    <Page title="Audit" about="Every write, in a chain that shows any change, removal or other order." actions={<Export />}>
      <Verify />
      <Group align="flex-end">{field("who", "Who", "user ann")}{field("action", "Action", "mailbox changed")}{field("subject", "What", "ana@example.org")}</Group>
      <Problem error={error} />
      {!entries && !error && <Skeleton h={200} />}
      {entries && (
        <div className="card scroll" tabIndex={0} role="region" aria-label="Entries">
          <table className="plain">
            <thead><tr><th scope="col">Entry</th><th scope="col">When</th><th scope="col">Who</th><th scope="col">Action</th><th scope="col">What</th><th scope="col">Why</th><th scope="col" className="wide">Before and after</th></tr></thead>
            <tbody>
              {entries.map((entry) => (
                <tr key={entry.position ?? `${entry.at} ${entry.subject}`}>
                  <td>{entry.position}</td><td><Ago time={entry.at} /></td><td className="break">{entry.who}</td><td>{entry.action}</td><td className="break">{entry.subject}</td>
                  <td className="break">{entry.why}</td><td className="wide small break">{change(entry.before, entry.after)}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {entries.length === 0 && <p className="quiet">Nothing matches.</p>}
        </div>
      )}
      {hasNextPage && <Group><Button variant="default" onClick={() => void fetchNextPage()}>Older entries</Button></Group>}
    </Page>
  );
}

/** Text, whatever it holds: names and reasons come from people. */
function change(before: unknown, after: unknown): string {
  const text = (value: unknown) => (value === null || value === undefined ? "" : JSON.stringify(value));
  const both = [text(before), text(after)].map((part) => (part.length > 300 ? `${part.slice(0, 300)}…` : part));
  return both[0] ? `${both[0]} → ${both[1] || "nothing"}` : (both[1] ?? "");
}

function Verify() {
  const [verdict, setVerdict] = useState<Verdict | null>(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  async function verify() {
    setBusy(true);
    setError(null);
    try {
      setVerdict(body(await api.POST("/api/v1/audit/verify")));
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  }
  return (
    <div className="card">
      <Group>
        <Button variant="default" loading={busy} onClick={() => void verify()}>Verify the chain</Button>
        <span role="status">
          {verdict && (verdict.intact ? `Whole: ${verdict.entries} entries, compared with ${verdict.heads_compared} heads kept outside.`
            : `Not whole. ${verdict.problems.map((problem) => `Entry ${problem.position}: ${problem.reason}.`).join(" ")}`)}
        </span>
      </Group>
      <Problem error={error} />
    </div>
  );
}

function Export() {
  const [error, setError] = useState<unknown>(null);
  const save = (format: "csv" | "jsonl") => void download(`/api/v1/audit/export?format=${format}`, `audit.${format}`).catch(setError);
  return (
    <Group>
      <Problem error={error} />
      <Button variant="default" onClick={() => save("csv")}>CSV</Button>
      <Button variant="default" onClick={() => save("jsonl")}>JSON lines</Button>
    </Group>
  );
}

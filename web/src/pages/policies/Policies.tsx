// How mailboxes are treated, and what was decided because of it.
import { Button, Group, Skeleton, TextInput } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { Link, useNavigate } from "react-router";
import { api, body, type Event } from "../../api/client";
import { POLL_MS, useHistory } from "../../api/queries";
import { Ago, At } from "../../parts/Ago";
import { Card, Page } from "../../parts/Page";
import { policyPath, runPath, serverPath } from "../../parts/paths";
import { Problem } from "../../parts/Problem";
import { ReasonAndRemedy } from "../../parts/Say";
import { Mark, type Tone } from "../../parts/State";
import { duration, mailboxes, words } from "../../parts/words";
import { type Automatic, documentOf } from "./document";

const AUTOMATIC: Record<Automatic, [Tone, string]> = { off: ["still", "○"], shadow: ["wait", "◐"], on: ["good", "●"] };

export function AutomaticMark({ automatic }: { automatic: Automatic }) {
  const [tone, icon] = AUTOMATIC[automatic] ?? ["still", "?"];
  return <Mark tone={tone} icon={icon}>{automatic}</Mark>;
}

export default function Policies() {
  const { data: policies, error, refetch } = useQuery({
    queryKey: ["policies"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/policies", { params: { query: { limit: 1000 } }, signal })).items,
    refetchInterval: POLL_MS * 3,
  });
  return (
    <Page title="Policies" about="What is done by itself when a primary is down: nothing, a line in the record, or a switchover.">
      <div className="stack">
        {error ? <Problem error={error} retry={() => void refetch()} /> : null}
        {!policies && !error && <Skeleton h={160} />}
        {policies && (
          <div className="card scroll" tabIndex={0} role="region" aria-label="Policies">
            <table className="plain">
              <thead><tr><th scope="col">Name</th><th scope="col">Mailboxes</th><th scope="col">Switchover by itself</th><th scope="col">Silent for</th><th scope="col" className="wide">Observers</th><th scope="col" className="wide">Not again for</th><th scope="col">Home by itself</th><th scope="col" className="wide">Changed</th></tr></thead>
              <tbody>
                {policies.map((policy) => {
                  const document = documentOf(policy.document);
                  return (
                    <tr key={policy.name}>
                      <td><Link to={policyPath(policy.name)}>{policy.name}</Link></td>
                      <td>{mailboxes(policy.mailboxes)}</td>
                      <td><AutomaticMark automatic={document.switchover} /></td>
                      <td>{duration(document.threshold_seconds)}</td>
                      <td className="wide">{document.quorum}</td>
                      <td className="wide">{duration(document.hold_down_seconds)}</td>
                      <td>{document.switchback}</td>
                      <td className="wide"><Ago time={policy.changed_at} /></td>
                    </tr>
                  );
                })}
              </tbody>
            </table>
            {!policies.some((policy) => policy.name === "default") && <p className="quiet small">Who is given no other policy has <Link to={policyPath("default")}>default</Link>, which is as it was built in.</p>}
          </div>
        )}
        <New />
        <Decided />
      </div>
    </Page>
  );
}

function New() {
  const navigate = useNavigate();
  const [name, setName] = useState("");
  function go(event: FormEvent) {
    event.preventDefault();
    if (name.trim()) navigate(policyPath(name.trim()));
  }
  return (
    <Card title="Another policy">
      <form onSubmit={go}>
        <Group align="flex-end" gap="sm">
          <TextInput label="Name of the policy" placeholder="gold" value={name} onChange={(event) => setName(event.currentTarget.value)} autoComplete="off" spellCheck={false} required />
          <Button type="submit">Write it</Button>
        </Group>
      </form>
    </Card>
  );
}

const DECISIONS: Record<string, [Tone, string, string]> = {
  switch: ["good", "⇢", "moved to the standby"],
  would_switch: ["wait", "◐", "would have moved"],
  restart: ["busy", "↻", "tried a restart"],
  would_restart: ["wait", "◐", "would have tried a restart"],
  refused: ["bad", "✕", "refused to move"],
};

function Decided() {
  const { data, error } = useHistory({ kind: "verdict" }, 30);
  const events = data?.pages.flatMap((page) => page.items);
  return (
    <Card title="What was decided" actions={<Link className="small" to="/events">All events</Link>}>
      <Problem error={error} />
      {!events && !error && <Skeleton h={80} />}
      {events?.length === 0 && <p className="quiet">No primary was found down for long enough yet. In shadow mode what would have been done stands here.</p>}
      {events && events.length > 0 && <ol className="timeline">{events.map((event) => <Decision key={event.event_id} event={event} />)}</ol>}
    </Card>
  );
}

function Decision({ event }: { event: Event }) {
  const detail = (event.detail ?? {}) as Record<string, unknown>;
  const text = (name: string) => (typeof detail[name] === "string" ? (detail[name] as string) : "");
  const [tone, icon, word] = DECISIONS[text("decision")] ?? ["still", "?", words(text("decision"))];
  const votes = Object.entries((detail["votes"] ?? {}) as Record<string, string>);
  return (
    <li>
      <span className="quiet small"><At time={event.created_at} /></span>
      <div>
        <Mark tone={tone as Tone} icon={icon}>{word}</Mark>{" "}
        {text("server") && <Link to={serverPath(text("server"))}>{text("server")}</Link>}{text("policy") && <> by <Link to={policyPath(text("policy"))}>{text("policy")}</Link></>}: <ReasonAndRemedy reason={text("reason") || text("why")} remedy={text("remedy") || undefined} />
        {votes.length > 0 && <span className="quiet small"> {votes.map(([observer, vote]) => `${observer}: ${vote}`).join("; ")}.</span>}
        {text("run") && <> (<Link to={runPath(text("run"))}>run</Link>)</>}
      </div>
    </li>
  );
}

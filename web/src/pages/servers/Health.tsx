// Whether a server is there: the verdict, each observer's vote, and what was found in the last hours as a row of bars.
import { Skeleton } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { api, body, type Schema } from "../../api/client";
import { POLL_MS } from "../../api/queries";
import { Ago } from "../../parts/Ago";
import { Card, Facts } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { Mark, type Tone } from "../../parts/State";
import { count, duration, whole } from "../../parts/words";
import { type Bar, bars, HOURS } from "./bars";

const VERDICTS: Record<string, [Tone, string]> = { up: ["good", "✓"], suspect: ["wait", "!"], unsure: ["wait", "!"], down: ["bad", "✕"] };
const FENCES: Record<string, string> = {
  holds: "users reach it through the front doors only",
  open: "users reach it past the front doors",
  unknown: "whether users reach it past the front doors is not known",
};

export function VerdictMark({ verdict }: { verdict: string }) {
  const [tone, icon] = VERDICTS[verdict] ?? ["still", "○"];
  return <Mark tone={tone} icon={icon}>{verdict}</Mark>;
}

export function Health({ name }: { name: string }) {
  const { data, error } = useQuery({
    queryKey: ["server", name, "health"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/servers/{name}/health", { params: { path: { name }, query: { hours: HOURS } }, signal })),
    refetchInterval: POLL_MS,
  });
  return (
    <Card title="Is it there?" actions={data && <VerdictMark verdict={data.verdict} />}>
      <Problem error={error} />
      {!data && !error && <Skeleton h={90} />}
      {data && <Known health={data} />}
    </Card>
  );
}

function Known({ health }: { health: Schema["ServerHealth"] }) {
  const votes = Object.entries(health.votes as Record<string, string>);
  const rows = bars(health.history, Date.now());
  return (
    <>
      <p>{whole(health.reason)}{health.since && <span className="quiet small"> For it: <Ago time={health.since} />.</span>}</p>
      <Facts facts={[
        ["Votes", votes.length > 0 && <span className="row">{votes.map(([observer, vote]) => <span key={observer}>{observer} <VerdictMark verdict={vote} /></span>)}</span>],
        ["Fence", health.fence && <span key="fence">{whole(FENCES[health.fence.state] ?? health.fence.state)} <span className="quiet">{whole(health.fence.reason)}</span></span>],
      ]} />
      {rows.map((row) => (
        <div key={`${row.observer} ${row.check}`} className="stack tight">
          <p className="small">{row.observer}, {row.check} checks: <span className="quiet">{count(row.good)} good, {count(row.bad)} bad in {HOURS} hours; mean {duration(row.mean)}, slowest {duration(row.slowest)}{row.reason && `; last failure: ${row.reason}`}</span></p>
          <div className="bars" role="img" aria-label={`${row.observer}, ${row.check} checks of the last ${HOURS} hours: ${row.good} good, ${row.bad} bad`}>
            {row.bars.map((bar, index) => <span key={index} className={kind(bar)} title={tip(bar)} />)}
          </div>
        </div>
      ))}
    </>
  );
}

function kind(bar: Bar): string {
  if (bar.good + bar.bad === 0) return "none";
  return bar.bad === 0 ? "fine" : bar.good === 0 ? "lost" : "some";
}

function tip(bar: Bar): string {
  const time = new Date(bar.from).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return bar.good + bar.bad === 0 ? `${time}: nobody looked` : `${time}: ${bar.good} good, ${bar.bad} bad${bar.reason ? `, ${bar.reason}` : ""}`;
}

// One run, live: its steps with times, and what came of it.
import { Button, Skeleton } from "@mantine/core";
import { useState } from "react";
import { Link, useParams } from "react-router";
import { api, type Run } from "../../api/client";
import { ended, useRun } from "../../api/queries";
import { Ago, At, Took } from "../../parts/Ago";
import { Card, Facts, Page } from "../../parts/Page";
import { serverPath } from "../../parts/paths";
import { Problem } from "../../parts/Problem";
import { subject } from "../../parts/RunList";
import { RunMark } from "../../parts/State";
import { title } from "../../parts/words";
import { Result } from "./Result";
import { Steps } from "./Steps";

export default function RunPage() {
  const { id = "" } = useParams();
  const { data: run, error, refetch } = useRun(id);
  return (
    <Page title={run ? title(run.kind) : "Run"} tab={run ? `${title(run.kind)} ${subject(run)}` : "Run"} above={["/runs", "Runs"]} mark={run && <RunMark state={run.state} />}
      about={run && <>{subject(run)}</>} actions={run && !ended(run) && <Cancel run={run} />}>
      {error ? <Problem error={error} retry={() => void refetch()} /> : null}
      {run ? <Known run={run} /> : error ? null : <Skeleton h={240} />}
    </Page>
  );
}

function Cancel({ run }: { run: Run }) {
  const [error, setError] = useState<unknown>(null);
  const { refetch } = useRun(run.run_id);
  return (
    <>
      <Button variant="default" disabled={run.cancel_requested} onClick={() => {
        api.POST("/api/v1/runs/{id}/cancel", { params: { path: { id: run.run_id } } }).then(() => refetch()).catch(setError);
      }}>{run.cancel_requested ? "Stops at the next safe point" : "Cancel the run"}</Button>
      {error ? <Problem error={error} /> : null}
    </>
  );
}

function Known({ run }: { run: Run }) {
  return (
    <div className="stack">
      <p className="hidden" role="status">The run is {run.state}.</p>
      {ended(run) || Boolean(run.result) ? <Result run={run} /> : null}
      <div className="columns">
        <Card title="Steps">
          {run.steps.length > 0 ? <Steps steps={run.steps} single={Boolean(run.address)} /> : <p className="quiet">{run.state === "waiting" ? "It waits for its turn." : ended(run) ? "It was done in one step." : "No step has been recorded yet."}</p>}
        </Card>
        <Card title="About this run">
          <Facts facts={[
            ["Asked for", <><At time={run.created_at} /> by {run.requested_by}</>],
            ["Reason", run.reason],
            ["Mailbox", run.address && <Link to={`/mailboxes/${encodeURIComponent(run.address)}`}>{run.address}</Link>],
            ["Server", run.server && <Link to={serverPath(run.server)}>{run.server}</Link>],
            ["Began", run.started_at && <Ago time={run.started_at} />],
            ["Ended", run.ended_at && <Ago time={run.ended_at} />],
            ["Took", run.started_at && <Took from={run.started_at} to={run.ended_at} />],
            ["Number", <span key="id" className="small break">{run.run_id}</span>],
          ]} />
        </Card>
      </div>
    </div>
  );
}

// What came of a run. Kinds that this page knows are shown in their own way, others as what the API says.
import { Button } from "@mantine/core";
import { Link } from "react-router";
import type { Run, Schema } from "../../api/client";
import { Data } from "../../parts/Data";
import { Card } from "../../parts/Page";
import { ReasonAndRemedy } from "../../parts/Say";
import { mailboxes } from "../../parts/words";
import { Findings } from "../servers/Findings";
import { Switched, switched } from "./Switched";
import { Verified } from "./Verified";

export function Result({ run }: { run: Run }) {
  const result = run.result as Record<string, unknown> | null;
  if (!result) return null;
  const moved = run.kind === "switchover" || run.kind === "switchback" ? switched(result) : null;
  if (moved) return <Card title="Result"><Switched moved={moved} /></Card>;
  if ((run.state === "failed" || run.state === "cancelled") && typeof result["reason"] === "string") {
    const { reason, remedy, ...rest } = result as { reason: string; remedy?: string };
    return (
      <>
        <div className={`note ${run.state === "failed" ? "bad" : "wait"}`} role="status"><ReasonAndRemedy reason={reason} remedy={remedy} /></div>
        {Object.keys(rest).length > 0 && <Card title="Result"><Data value={rest} /></Card>}
      </>
    );
  }
  if (run.kind === "verify") return <Card title="Result"><Verified result={result} /></Card>;
  if (run.kind === "check" && Array.isArray(result["findings"])) {
    return <Card title="Result"><Findings check={result as unknown as Schema["Check"]} /></Card>;
  }
  if (run.kind === "discover" && Array.isArray(result["users"])) {
    const users = result["users"] as string[];
    return (
      <Card title="Result" actions={run.server && <Button size="xs" component={Link} to={`/protect?discovered=${run.run_id}&primary=${encodeURIComponent(run.server)}`}>Choose some to protect</Button>}>
        <p>{mailboxes(users.length)} found.</p>
        <Data value={users} />
      </Card>
    );
  }
  return <Card title="Result"><Data value={result} /></Card>;
}

// The last comparison of the two sides, difference by difference.
import { Button } from "@mantine/core";
import { useState } from "react";
import { Link } from "react-router";
import { api, body, type Mailbox } from "../../api/client";
import { ended, useRun, useRuns } from "../../api/queries";
import { Ago } from "../../parts/Ago";
import { Confirm } from "../../parts/Confirm";
import { Card } from "../../parts/Page";
import { runPath } from "../../parts/paths";
import { Problem } from "../../parts/Problem";
import { RunMark } from "../../parts/State";
import { plural } from "../../parts/words";
import { comparisons, Verified } from "../runs/Verified";

// Until the mailbox's own figure has come.
const JUST_NOW = 60_000;

export function Verification({ mailbox }: { mailbox: Mailbox }) {
  const runs = useRuns({ mailbox: mailbox.address, kind: "verify" }, 5);
  const [asked, setAsked] = useState<string | null>(null);
  const [repairing, setRepairing] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const last = asked ?? runs.data?.pages[0]?.items[0]?.run_id ?? null;
  const { data: run } = useRun(last);
  const goingOn = run !== undefined && !ended(run);

  const different = run?.state === "done" && (comparisons(run.result)?.some((one) => one.differences.length > 0) ?? false);
  // Comparisons go on by themselves, without a run that names what they find. A run that has just ended says it itself.
  const justNow = run?.ended_at != null && Date.now() - Date.parse(run.ended_at) < JUST_NOW;
  const found = different || goingOn || justNow ? 0 : (mailbox.differences ?? 0);

  async function verify(how: { deep?: boolean; repair?: boolean; reason?: string }) {
    setError(null);
    setRepairing(false);
    try {
      const params = { path: { address: mailbox.address }, query: { primary: mailbox.primary } };
      const begun = body(await api.POST("/api/v1/mailboxes/{address}/verify", { params, body: how }));
      setAsked(begun.run_id);
    } catch (problem) {
      setError(problem);
    }
  }

  return (
    <Card title="Verification" actions={
      <div className="actions">
        <Button size="xs" variant="default" loading={goingOn} onClick={() => void verify({})}>Verify now</Button>
        <Button size="xs" variant="default" disabled={goingOn} onClick={() => void verify({ deep: true })}>Every byte</Button>
      </div>
    }>
      <Problem error={error ?? runs.error} />
      {!last && found === 0 && runs.data && <p className="quiet">Never verified by itself. Verifying compares folders, messages, flags and dates on both sides and changes nothing.</p>}
      {found > 0 && <p>The last comparison by itself found {plural(found, "difference")}. Verify now to see each.</p>}
      {run && (
        <>
          <p><RunMark state={run.state} /> <Link to={runPath(run.run_id)}>Run</Link> asked for by {run.requested_by}, <Ago time={run.ended_at ?? run.created_at} />{(run.request as { deep?: boolean })?.deep && ", every byte"}</p>
          {ended(run) && <Verified result={run.result} />}
        </>
      )}
      {(different || found > 0) && <div><Button size="xs" onClick={() => setRepairing(true)}>Repair…</Button></div>}
      {mailbox.last_verified_at && <p className="quiet small">Last found equal <Ago time={mailbox.last_verified_at} />.</p>}
      {repairing && (
        <Confirm title={`Make the standby equal to the primary for ${mailbox.address}?`} act="Repair" onAct={(reason) => void verify({ repair: true, reason })} onClose={() => setRepairing(false)}>
          <p>Both sides are compared again, and what differs on the standby is made as it is on the primary: messages, flags, folders and subscriptions. What only the standby has is removed there. The primary is not touched.</p>
        </Confirm>
      )}
    </Card>
  );
}

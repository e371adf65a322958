// One thing done to many mailboxes: says to how many and which, asks for the reason, then shows how far it is.
//
// Verifying and waiting are one run for all. Pausing, resuming and unprotecting are one request each, some at a time; whatever is
// refused is listed and the rest goes on.
import { Button, Group, Progress, Stack } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { useNavigate } from "react-router";
import { Dialog } from "../../parts/Dialog";
import { api, body, type Mailbox, Refusal, type Run } from "../../api/client";
import { Confirm } from "../../parts/Confirm";
import { runPath } from "../../parts/paths";
import { Problem } from "../../parts/Problem";
import { ReasonAndRemedy } from "../../parts/Say";
import { keepSelection } from "../../parts/selection";
import { count, mailboxes } from "../../parts/words";
import { type Filter, inWords } from "./filter";
import type { Chosen } from "./Table";
import { every } from "./useMailboxes";

export type Act = "verify" | "deep" | "barrier" | "pause" | "resume" | "unprotect" | "switchover" | "switchback";

const SIDE_BY_SIDE = 8;
/** Above this, a change asks for the number to be typed. */
const MANY = 20;

const WORDS: Record<Act, { title: (n: string) => string; what: string; act: string }> = {
  verify: { title: (n) => `Verify ${n}?`, what: "Compares the two sides message by message and changes nothing.", act: "Verify" },
  deep: { title: (n) => `Verify every byte of ${n}?`, what: "Reads every message on both sides and compares the bytes. Changes nothing; takes as long as reading everything does.", act: "Verify" },
  barrier: { title: (n) => `Wait for ${n}?`, what: "A run that ends when every change made before now on the active side is visible on the other.", act: "Wait" },
  pause: { title: (n) => `Pause ${n}?`, what: "Nothing is captured or applied until they are resumed: the standby falls behind. No mail is lost by it.", act: "Pause" },
  resume: { title: (n) => `Resume ${n}?`, what: "Goes on, and tries at once again whatever stood in the way.", act: "Resume" },
  unprotect: { title: (n) => `Unprotect ${n}?`, what: "They are mirrored no longer. What is on the standby stays there as it was last applied.", act: "Unprotect" },
  switchover: { title: (n) => `Switch over ${n}?`, what: "", act: "Go on" },
  switchback: { title: (n) => `Switch back ${n}?`, what: "", act: "Go on" },
};

interface BulkProps {
  act: Act;
  chosen: Chosen;
  filter: Filter;
  onClose: (done: boolean) => void;
}

interface Failure {
  address: string;
  problem: { detail: string; remedy: string };
}

export function Bulk({ act, chosen, filter, onClose }: BulkProps) {
  const navigate = useNavigate();
  const client = useQueryClient();
  const [targets, setTargets] = useState<Mailbox[]>(() => (chosen.all ? [] : [...chosen.some.values()]));
  const [collecting, setCollecting] = useState(chosen.all);
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const [done, setDone] = useState<number | null>(null);
  const [failures, setFailures] = useState<Failure[]>([]);
  const stopped = useRef(false);

  // What matches is counted when the dialog opens, so that it can say what it is about to do.
  const signature = JSON.stringify(filter);
  useEffect(() => {
    if (!chosen.all) return undefined;
    const leaving = new AbortController();
    (async () => {
      const found: Mailbox[] = [];
      for await (const page of every(JSON.parse(signature) as Filter, leaving.signal)) {
        found.push(...page);
        setTargets([...found]);
      }
      setCollecting(false);
    })().catch((problem: unknown) => {
      if (!leaving.signal.aborted) setError(problem);
    });
    return () => leaving.abort();
  }, [chosen.all, signature]);

  const switching = act === "switchover" || act === "switchback";
  useEffect(() => {
    if (!switching || collecting || targets.length === 0) return;
    const primaries = new Set(targets.map((mailbox) => mailbox.primary));
    keepSelection({
      addresses: targets.map((mailbox) => mailbox.address),
      primary: primaries.size === 1 ? targets[0]?.primary : undefined,
      words: chosen.all ? inWords(filter) : mailboxes(targets.length),
    });
    navigate(`/${act}?chosen=yes`);
  }, [switching, collecting, targets, act, chosen.all, filter, navigate]);

  const wording = WORDS[act];
  const name = mailboxes(targets.length);

  async function asOneRun(reason: string) {
    const runs: Run[] = [];
    const primaries = [...new Set(targets.map((mailbox) => mailbox.primary))];
    for (const primary of primaries) {
      const addresses = targets.filter((mailbox) => mailbox.primary === primary).map((mailbox) => mailbox.address);
      runs.push(body(act === "barrier"
        ? await api.POST("/api/v1/barriers", { body: { addresses, primary, reason } })
        : await api.POST("/api/v1/verifications", { body: { addresses, primary, reason, deep: act === "deep" } })));
    }
    const [only] = runs;
    navigate(runs.length === 1 && only ? runPath(only.run_id) : "/runs");
  }

  async function oneByOne(reason: string) {
    const queue = [...targets];
    const refused: Failure[] = [];
    let finished = 0;
    setDone(0);
    await Promise.all(Array.from({ length: SIDE_BY_SIDE }, async () => {
      for (let next = queue.shift(); next && !stopped.current; next = queue.shift()) {
        try {
          await once(act, next, reason);
        } catch (problem) {
          const { detail, remedy } = problem instanceof Refusal ? problem.problem : { detail: String(problem), remedy: "try again" };
          refused.push({ address: next.address, problem: { detail, remedy } });
          setFailures([...refused]);
        }
        finished += 1;
        setDone(finished);
      }
    }));
    void client.invalidateQueries({ queryKey: ["mailboxes"] });
    void client.invalidateQueries({ queryKey: ["status"] });
    if (refused.length === 0) onClose(true);
  }

  async function start(reason: string) {
    setBusy(true);
    setError(null);
    try {
      if (act === "pause" || act === "resume" || act === "unprotect") await oneByOne(reason);
      else await asOneRun(reason);
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  }

  if (collecting || switching) {
    return (
      <Dialog onClose={() => onClose(false)} title="Looking for what matches">
        <Stack><p role="status">{mailboxes(targets.length)} so far…</p><Problem error={error} /></Stack>
      </Dialog>
    );
  }
  if (done !== null) {
    const running = busy && done < targets.length;
    return (
      <Dialog onClose={() => { stopped.current = true; onClose(true); }} title={`${wording.act}: ${name}`}>
        <Stack>
          <Progress value={(done / Math.max(1, targets.length)) * 100} aria-label="Progress" />
          <p role="status">{count(done)} of {count(targets.length)} done{failures.length > 0 && `, ${count(failures.length)} refused`}</p>
          {failures.length > 0 && (
            <ul className="lines small">{failures.slice(0, 50).map((failure) => (
              <li key={failure.address}><strong>{failure.address}</strong>: <ReasonAndRemedy reason={failure.problem.detail} remedy={failure.problem.remedy} /></li>
            ))}</ul>
          )}
          <Group justify="flex-end">
            {running ? <Button variant="default" onClick={() => { stopped.current = true; }}>Stop here</Button> : <Button onClick={() => onClose(true)}>Close</Button>}
          </Group>
        </Stack>
      </Dialog>
    );
  }
  return (
    <Confirm title={wording.title(name)} act={wording.act} names={targets.map((mailbox) => mailbox.address)} busy={busy} error={error}
      danger={act === "unprotect"} typed={(act === "unprotect" || act === "pause") && targets.length > MANY ? String(targets.length) : undefined}
      onAct={(reason) => void start(reason)} onClose={() => onClose(false)}>
      <p>{wording.what}</p>
      {chosen.all && <p className="quiet small">Chosen: {inWords(filter)}, as of now.</p>}
    </Confirm>
  );
}

async function once(act: Act, mailbox: Mailbox, reason: string): Promise<void> {
  const params = { path: { address: mailbox.address }, query: { primary: mailbox.primary } };
  if (act === "pause") await api.POST("/api/v1/mailboxes/{address}/pause", { params, body: { reason } });
  if (act === "resume") await api.POST("/api/v1/mailboxes/{address}/resume", { params, body: { reason } });
  if (act === "unprotect") await api.DELETE("/api/v1/mailboxes/{address}", { params });
}

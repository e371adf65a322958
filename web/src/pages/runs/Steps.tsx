// The steps of a run in their order, each with how long it took.
import type { Schema } from "../../api/client";
import { At, Took } from "../../parts/Ago";
import { Mark, type Tone } from "../../parts/State";
import { title, whole, words } from "../../parts/words";

/** The most steps shown: a run over thousands of mailboxes has some for each. */
const SHOWN = 500;

/** What the steps of a change of sides are for. */
const MEANING: Record<string, string> = {
  check: "both sides answer",
  live: "carries over while the user works",
  hold: "new log-ins wait",
  cut: "old sessions end",
  drain: "the old side has been still",
  last: "carries over the rest",
  flip: "log-ins go to the other side",
  release: "log-ins wait no longer",
  sweep: "what the old side still took is brought over",
};

function tone(outcome: string, isOpen: boolean): [Tone, string] {
  if (isOpen) return ["busy", "◔"];
  if (/fail|error|refus|timeout|lost/.test(outcome)) return ["bad", "✕"];
  if (/cancel|skip|late/.test(outcome)) return ["wait", "–"];
  return ["good", "✓"];
}

const WORDS: Record<Tone, string> = { good: "done", busy: "going on", bad: "failed", wait: "left out", still: "done" };

/** `single`: of one mailbox, which need not be named at each step. */
export function Steps({ steps, single }: { steps: Schema["Step"][]; single: boolean }) {
  const shown = steps.slice(-SHOWN);
  return (
    <>
      {steps.length > SHOWN && <p className="quiet small">The last {SHOWN} of {steps.length}.</p>}
      <ol className="timeline" aria-live="polite">
        {shown.map((step) => {
          const [colour, icon] = tone(step.outcome, !step.ended_at);
          return (
            <li key={step.position}>
              <span className="quiet small"><At time={step.started_at} /></span>
              <div>
                <div className="row between">
                  <span><strong>{title(step.name)}</strong> {MEANING[step.name] && <span className="quiet small">{MEANING[step.name]}</span>}</span>
                  <span className="row"><Took from={step.started_at} to={step.ended_at} /><Mark tone={colour} icon={icon}>{step.ended_at ? WORDS[colour] : "going on"}</Mark></span>
                </div>
                {!single && step.address && <div className="break small">{step.address}</div>}
                {step.outcome && step.outcome !== "done" && <div className="quiet small break">{whole(words(step.outcome))}</div>}
              </div>
            </li>
          );
        })}
      </ol>
    </>
  );
}

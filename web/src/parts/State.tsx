// States are colour, icon and word.
import type { MailboxState } from "../api/client";
import { words } from "./words";

export type Tone = "good" | "busy" | "wait" | "bad" | "still";

export function Mark({ tone, icon, children }: { tone: Tone; icon: string; children: string }) {
  return <span className={`state ${tone}`}><span aria-hidden="true">{icon}</span>{children}</span>;
}

const MAILBOX: Record<MailboxState, [Tone, string]> = {
  seeding: ["busy", "◔"],
  mirroring: ["good", "✓"],
  paused: ["wait", "Ⅱ"],
  held: ["wait", "!"],
  faulted: ["bad", "✕"],
  switching_over: ["busy", "⇢"],
  on_standby: ["wait", "⇄"],
  switching_back: ["busy", "⇠"],
};

export const MAILBOX_STATES = Object.keys(MAILBOX) as MailboxState[];

export function MailboxMark({ state }: { state: MailboxState }) {
  const [tone, icon] = MAILBOX[state] ?? ["still", "?"];
  return <Mark tone={tone} icon={icon}>{words(state)}</Mark>;
}

const RUN: Record<string, [Tone, string]> = {
  waiting: ["still", "○"],
  running: ["busy", "◔"],
  done: ["good", "✓"],
  failed: ["bad", "✕"],
  cancelled: ["wait", "–"],
};

export function RunMark({ state }: { state: string }) {
  const [tone, icon] = RUN[state] ?? ["still", "?"];
  return <Mark tone={tone} icon={icon}>{words(state)}</Mark>;
}

const FINDING: Record<string, [Tone, string]> = { ok: ["good", "✓"], note: ["still", "i"], warning: ["wait", "!"], failed: ["bad", "✕"] };

export function FindingMark({ level }: { level: string }) {
  const [tone, icon] = FINDING[level] ?? ["still", "?"];
  return <Mark tone={tone} icon={icon}>{level}</Mark>;
}

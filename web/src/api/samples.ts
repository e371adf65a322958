// Lag and throughput over the last hour, measured while this tab is open: counters are read every few seconds.
//
// Throughput comes from the counters at /metrics, which the gateways have only where they run in the same process as the admin
// API (`understudy up`). Elsewhere it is unknown, and is said to be so.
import { useSyncExternalStore } from "react";
import { lastLagSample } from "./live";
import { credentials } from "./session";

export interface Sample {
  at: number;
  /** Transactions applied a second since the sample before; null while unknown. */
  applied: number | null;
  /** Content bytes a second over the link. */
  bytes: number | null;
  /** Mean seconds from captured to applied, of what was applied since the sample before; null when nothing was. */
  lag: number | null;
  /** Age of the oldest transaction that waits. */
  waiting: number;
}

export interface Counters {
  at: number;
  applied: number | null;
  bytes: number | null;
  lagSum: number;
  lagCount: number;
  waiting: number;
}

const EVERY_MS = 5000;
const KEPT = 720;
const STORE = "understudy.samples";

let samples: readonly Sample[] = restore();
let before: Counters | null = null;
const listeners = new Set<() => void>();

function restore(): Sample[] {
  try {
    const kept = JSON.parse(sessionStorage.getItem(STORE) ?? "[]") as Sample[];
    return kept.filter((sample) => Date.now() - sample.at < KEPT * EVERY_MS);
  } catch {
    return [];
  }
}

/** Adds up a metric over all its labels; null where there is none. */
export function total(text: string, name: string): number | null {
  let sum: number | null = null;
  for (const line of text.split("\n")) {
    if (!line.startsWith(name)) continue;
    const rest = line.slice(name.length);
    if (rest[0] !== " " && rest[0] !== "{") continue;
    const value = Number(rest.slice(rest.lastIndexOf(" ") + 1));
    if (Number.isFinite(value)) sum = (sum ?? 0) + value;
  }
  return sum;
}

/** What happened between two looks. A counter that fell began anew: then nothing is known. */
export function sample(earlier: Counters | null, now: Counters): Sample {
  const seconds = earlier ? (now.at - earlier.at) / 1000 : 0;
  const rate = (from: number | null | undefined, to: number | null) =>
    from === null || from === undefined || to === null || to < from || seconds <= 0 ? null : (to - from) / seconds;
  const applied = earlier ? now.lagCount - earlier.lagCount : 0;
  return {
    at: now.at,
    applied: rate(earlier?.applied, now.applied),
    bytes: rate(earlier?.bytes, now.bytes),
    lag: earlier && applied > 0 ? (now.lagSum - earlier.lagSum) / applied : null,
    waiting: now.waiting,
  };
}

async function measure(): Promise<void> {
  const response = await fetch("/metrics", { headers: credentials("GET"), cache: "no-store" });
  if (!response.ok) return;
  const text = await response.text();
  const now: Counters = {
    at: Date.now(),
    applied: total(text, "understudy_transactions_applied_total"),
    bytes: total(text, "understudy_link_bytes_total"),
    lagSum: total(text, "understudy_lag_seconds_sum") ?? 0,
    lagCount: total(text, "understudy_lag_seconds_count") ?? 0,
    waiting: total(text, "understudy_lag_worst_seconds") ?? lastLagSample()?.seconds ?? 0,
  };
  const next = sample(before, now);
  before = now;
  samples = [...samples, next].slice(-KEPT);
  listeners.forEach((listener) => listener());
}

/** Measures until `signal` ends it. */
export async function measureFor(signal: AbortSignal): Promise<void> {
  const keep = () => sessionStorage.setItem(STORE, JSON.stringify(samples));
  window.addEventListener("pagehide", keep, { signal });
  while (!signal.aborted) {
    // A look that fails leaves a gap in the line.
    if (!document.hidden) await measure().catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

export function useSamples(): readonly Sample[] {
  return useSyncExternalStore((listener) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, () => samples);
}

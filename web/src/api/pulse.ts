// When Understudy was last heard of, and whether the event stream is open: what "live" and "stale since" are made of.
import { useSyncExternalStore } from "react";

export interface Pulse {
  /** Milliseconds since the epoch; 0 before the first answer. */
  heardAt: number;
  streaming: boolean;
}

/** A pulse is told on at most this often, however many events come. */
const STEP_MS = 500;
let pulse: Pulse = { heardAt: 0, streaming: false };
const listeners = new Set<() => void>();

function set(next: Pulse): void {
  pulse = next;
  listeners.forEach((listener) => listener());
}

/** Something came. */
export function heard(): void {
  const now = Date.now();
  if (now - pulse.heardAt >= STEP_MS) set({ ...pulse, heardAt: now });
}

export function streaming(open: boolean): void {
  if (pulse.streaming !== open) set({ heardAt: open ? Date.now() : pulse.heardAt, streaming: open });
}

export function usePulse(): Pulse {
  return useSyncExternalStore((listener) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, () => pulse);
}

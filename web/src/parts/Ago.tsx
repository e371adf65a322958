// Times as their distance from now, with the exact one (the viewer's zone and UTC) in the tooltip.
import { useSyncExternalStore } from "react";
import { ago, duration } from "./words";

/** Everything that shows the time looks at the same clock, which moves once a second. */
let now = Date.now();
const listeners = new Set<() => void>();
let ticking: ReturnType<typeof setInterval> | null = null;

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  ticking ??= setInterval(() => {
    now = Date.now();
    listeners.forEach((tell) => tell());
  }, 1000);
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0 && ticking) {
      clearInterval(ticking);
      ticking = null;
    }
  };
}

export function useNow(): number {
  return useSyncExternalStore(subscribe, () => now);
}

function exact(time: string): string {
  const date = new Date(time);
  return `${date.toLocaleString()} · ${date.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

export function Ago({ time, never = "never" }: { time: string | null | undefined; never?: string }) {
  const current = useNow();
  if (!time) return <>{never}</>;
  const seconds = Math.max(0, (current - Date.parse(time)) / 1000);
  return <time dateTime={time} title={exact(time)}>{ago(seconds)}</time>;
}

/** A moment, for lists in the order of time. */
export function At({ time }: { time: string }) {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  const day = today ? "" : `${date.toLocaleDateString(undefined, { month: "short", day: "numeric" })} `;
  return <time className="number nowrap" dateTime={time} title={exact(time)}>{day}{date.toLocaleTimeString()}</time>;
}

/** How long something took, or has been taking. */
export function Took({ from, to }: { from: string; to: string | null | undefined }) {
  const current = useNow();
  const seconds = Math.max(0, ((to ? Date.parse(to) : current) - Date.parse(from)) / 1000);
  return <span className="number">{to ? duration(seconds) : `${duration(Math.floor(seconds))} so far`}</span>;
}

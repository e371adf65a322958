// Keeps the page current: one event stream for the whole page.
//
// An event says that something changed; what is then shown is always asked for, at most once a second however many events
// come. Lag samples carry their numbers and are shown as they come.
import type { QueryClient } from "@tanstack/react-query";
import { useSyncExternalStore } from "react";
import type { Event, Schema } from "./client";
import { heard, streaming } from "./pulse";
import { credentials, signOut } from "./session";
import { Frames } from "./stream";

/** Many events at once cause one question. */
const SETTLE_MS = 1000;
/** Before the stream is opened again. */
const RECONNECT_MS = 2000;
/** The stream says something every 15 s; after twice that it is dead. */
const SILENT_MS = 35_000;
/** Events kept for the screen that shows them. */
const KEPT = 500;

export type LagSample = Schema["LagSample"];

/** What the newest events were, newest first. */
let recent: readonly Event[] = [];
let lag: LagSample | null = null;
const listeners = new Set<() => void>();

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function useRecentEvents(): readonly Event[] {
  return useSyncExternalStore(subscribe, () => recent);
}

/** The last lag sample of the stream, null before the first. */
export function useLagSample(): LagSample | null {
  return useSyncExternalStore(subscribe, () => lag);
}

export function lastLagSample(): LagSample | null {
  return lag;
}

/** Listens until `signal` ends it, and marks what is shown as due for another look. */
export async function listen(client: QueryClient, signal: AbortSignal): Promise<void> {
  const page = new Page(client);
  let lastId: string | null = null;
  while (!signal.aborted) {
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    signal.addEventListener("abort", stop);
    let watchdog = setTimeout(stop, SILENT_MS);
    try {
      const headers: Record<string, string> = { ...credentials("GET"), Accept: "text/event-stream" };
      if (lastId) headers["Last-Event-ID"] = lastId;
      const response = await fetch("/api/v1/events", { headers, signal: attempt.signal, cache: "no-store" });
      if (response.status === 401) signOut("You were away for too long, or somebody ended the session.");
      if (response.ok && response.body) {
        streaming(true);
        // What happened while nobody listened is not in the stream when this is the first time.
        page.everything();
        const frames = new Frames();
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
          clearTimeout(watchdog);
          watchdog = setTimeout(stop, SILENT_MS);
          heard();
          for (const frame of frames.push(piece.value)) {
            lastId = frame.id ?? lastId;
            page.take(frame.event, frame.data);
          }
        }
      }
    } catch {
      // The connection went away; below it is opened again.
    }
    clearTimeout(watchdog);
    signal.removeEventListener("abort", stop);
    streaming(false);
    if (!signal.aborted) await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
  }
}

/** What events mean for what is shown. */
class Page {
  private due = new Set<string>();
  private arrived: Event[] = [];
  private timer: ReturnType<typeof setTimeout> | null = null;

  constructor(private readonly client: QueryClient) {}

  everything(): void {
    this.mark("status", "mailboxes", "mailbox", "servers", "server", "runs", "run", "history", "routes", "link");
  }

  take(kind: string, data: string): void {
    if (kind === "lag") {
      lag = JSON.parse(data) as LagSample;
      this.mark("lag");
      return;
    }
    const event = JSON.parse(data) as Event;
    this.arrived.push(event);
    this.mark("status", "history");
    if (event.address || kind === "protected" || kind === "unprotected") this.mark("mailboxes", "mailbox", "routes");
    if (event.run_id || kind.startsWith("run")) this.mark("runs", "run");
    if (kind.startsWith("link")) this.mark("link");
    if (kind.startsWith("server") || kind === "trouble" || kind === "run") this.mark("servers", "server");
  }

  private mark(...keys: string[]): void {
    keys.forEach((key) => this.due.add(key));
    this.timer ??= setTimeout(() => this.tell(), SETTLE_MS);
  }

  private tell(): void {
    this.timer = null;
    const due = this.due;
    this.due = new Set();
    if (this.arrived.length > 0) {
      recent = [...this.arrived.reverse(), ...recent].slice(0, KEPT);
      this.arrived = [];
    }
    // What is on the way already is not asked for again; the next event or the timer of the query does.
    if (due.has("lag") && !due.has("mailbox")) void this.client.invalidateQueries({ queryKey: ["mailbox"] }, { cancelRefetch: false });
    for (const key of due) void this.client.invalidateQueries({ queryKey: [key] }, { cancelRefetch: false });
    listeners.forEach((listener) => listener());
  }
}

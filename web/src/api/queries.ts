// The questions that several screens ask. Their first key is what events mark as due (`live.ts`).
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { api, body, type Run } from "./client";

/** Without an event, everything shown is asked for again after so long. */
export const POLL_MS = 10_000;
/** A run that goes on is looked at so often. */
const RUN_MS = 1000;

export const ended = (run: Run): boolean => ["done", "failed", "cancelled"].includes(run.state);

export function useStatus() {
  return useQuery({
    queryKey: ["status"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/status", { signal })),
    refetchInterval: POLL_MS,
  });
}

export function useServers() {
  return useQuery({
    queryKey: ["servers"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/servers", { params: { query: { limit: 1000 } }, signal })).items,
    refetchInterval: POLL_MS * 3,
  });
}

export function useGroups() {
  return useQuery({
    queryKey: ["mailboxes", "groups"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/groups", { params: { query: { limit: 1000 } }, signal })).items,
    staleTime: POLL_MS,
  });
}

export function useServer(name: string) {
  return useQuery({
    queryKey: ["server", name],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/servers/{name}", { params: { path: { name } }, signal })),
    refetchInterval: POLL_MS,
  });
}

export function useMailbox(address: string, primary: string | undefined) {
  return useQuery({
    queryKey: ["mailbox", address, primary],
    queryFn: async ({ signal }) =>
      body(await api.GET("/api/v1/mailboxes/{address}", { params: { path: { address }, query: { primary } }, signal })),
    refetchInterval: POLL_MS,
  });
}

export function useRun(id: string | null) {
  return useQuery({
    queryKey: ["run", id],
    enabled: id !== null,
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/runs/{id}", { params: { path: { id: id ?? "" } }, signal })),
    refetchInterval: ({ state }) => (state.data && ended(state.data) ? false : RUN_MS),
  });
}

export interface RunFilter {
  state?: Run["state"];
  kind?: string;
  mailbox?: string;
  server?: string;
}

export function useRuns(filter: RunFilter, limit = 50) {
  return useInfiniteQuery({
    queryKey: ["runs", filter, limit],
    initialPageParam: undefined as string | undefined,
    queryFn: async ({ pageParam, signal }) =>
      body(await api.GET("/api/v1/runs", { params: { query: { ...filter, limit, after: pageParam } }, signal })),
    getNextPageParam: (page) => page.next ?? undefined,
    refetchInterval: POLL_MS,
  });
}

export interface HistoryFilter {
  mailbox?: string;
  primary?: string;
  run?: string;
  kind?: string;
}

export function useHistory(filter: HistoryFilter, limit = 100) {
  return useInfiniteQuery({
    queryKey: ["history", filter, limit],
    initialPageParam: undefined as string | undefined,
    queryFn: async ({ pageParam, signal }) =>
      body(await api.GET("/api/v1/history", { params: { query: { ...filter, limit, after: pageParam } }, signal })),
    getNextPageParam: (page) => page.next ?? undefined,
    // Older pages do not change; the newest events come with the stream and the page is asked for again.
    maxPages: 20,
  });
}

// A list of any length, page after page. Only the pages that are in view are asked for again when something changes.
import { useQueries, useQueryClient } from "@tanstack/react-query";
import { useCallback, useEffect, useMemo, useState } from "react";
import { api, body, type Mailbox } from "../../api/client";
import { POLL_MS } from "../../api/queries";
import type { Filter } from "./filter";

export const PAGE = 500;

interface Pages {
  rows: Mailbox[];
  /** There are more than those in `rows`. */
  more: boolean;
  loading: boolean;
  error: unknown;
  retry: () => void;
  /** Says which rows are in view, and so which pages have to be current and whether more are needed. */
  look: (first: number, last: number) => void;
}

const key = (filter: Filter, cursor: string | undefined) => ["mailboxes", "page", filter, cursor ?? null];

export function useMailboxes(filter: Filter): Pages {
  const client = useQueryClient();
  const [depth, setDepth] = useState(1);
  const [view, setView] = useState<[number, number]>([0, 0]);
  const signature = JSON.stringify(filter);
  useEffect(() => {
    setDepth(1);
    setView([0, 0]);
  }, [signature]);

  // Each page names the next one. What is known of the chain is in the cache.
  const cursors: (string | undefined)[] = [undefined];
  for (let index = 0; index + 1 < depth; index += 1) {
    const page = client.getQueryData<{ next?: string | null }>(key(filter, cursors[index]));
    if (!page?.next) break;
    cursors.push(page.next);
  }
  const results = useQueries({
    queries: cursors.map((cursor, index) => {
      const inView = index >= view[0] && index <= view[1];
      return {
        queryKey: key(filter, cursor),
        queryFn: async ({ signal }: { signal: AbortSignal }) =>
          body(await api.GET("/api/v1/mailboxes", { params: { query: { ...filter, limit: PAGE, after: cursor } }, signal })),
        // Out of view, a page may be old: it is asked for again when it comes into view.
        enabled: inView || client.getQueryData(key(filter, cursor)) === undefined,
        refetchInterval: inView ? POLL_MS : (false as const),
      };
    }),
  });
  const stamp = results.map((result) => result.dataUpdatedAt).join();
  const rows = useMemo(() => {
    const all: Mailbox[] = [];
    for (const result of results) {
      if (!result.data) break;
      all.push(...result.data.items);
    }
    return all;
    // The results are new objects at each look; what is in them is as old as its stamp.
  }, [stamp, signature]);
  const last = results.at(-1);
  const more = Boolean(last?.data ? last.data.next : last?.isPending);
  const look = useCallback((first: number, end: number) => {
    const next: [number, number] = [Math.floor(first / PAGE), Math.floor(end / PAGE)];
    setView((was) => (was[0] === next[0] && was[1] === next[1] ? was : next));
    if (end > (depth - 1) * PAGE + PAGE / 2 && rows.length >= depth * PAGE && more) setDepth(depth + 1);
  }, [depth, rows.length, more]);
  const failed = results.find((result) => result.error);
  return {
    rows,
    more,
    loading: rows.length === 0 && results.some((result) => result.isPending && result.fetchStatus !== "idle"),
    error: failed?.error ?? null,
    retry: () => void failed?.refetch(),
    look,
  };
}

/** Every mailbox that matches now, told page by page. */
export async function* every(filter: Filter, signal: AbortSignal): AsyncGenerator<Mailbox[]> {
  let after: string | undefined;
  do {
    const page = body(await api.GET("/api/v1/mailboxes", { params: { query: { ...filter, limit: 1000, after } }, signal }));
    yield page.items;
    after = page.next ?? undefined;
  } while (after);
}

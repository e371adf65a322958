// How a change of sides is asked for.
import { api, body, type Mailbox, type Run } from "../../api/client";
import type { Target } from "./look";
import type { Scope } from "./Scopes";

export type Mode = "planned" | "emergency";

export type Selector = { addresses: string[]; primary?: string } | { server: string } | { group: string } | { all: true };

/** A server, a group or all are named as such: whoever joins them meanwhile is meant too. */
export function selectorBody(scope: Scope, moved: Mailbox[]): Selector {
  if (scope.by === "server") return { server: scope.server };
  if (scope.by === "group") return { group: scope.group.trim() };
  if (scope.by === "all") return { all: true };
  const primaries = new Set(moved.map((mailbox) => mailbox.primary));
  const [primary] = primaries;
  return { addresses: moved.map((mailbox) => mailbox.address), ...(primaries.size === 1 && primary ? { primary } : {}) };
}

export interface Asked {
  selector: Selector;
  reason: string;
  mode: Mode;
  /** In an emergency: how many transactions of a mailbox may be lost at most; null for any number. */
  maxLoss: number | null;
  /** Of a switchback: only say what would change. */
  dryRun: boolean;
  /** Whether users are told. */
  notify: boolean;
}

export async function begin(target: Target, { selector, reason, mode, maxLoss, dryRun, notify }: Asked): Promise<Run> {
  if (target === "primary") return body(await api.POST("/api/v1/switchbacks", { body: { selector, dry_run: dryRun, reason, notify } }));
  const max_loss = mode === "emergency" && maxLoss !== null ? maxLoss : undefined;
  return body(await api.POST("/api/v1/switchovers", { body: { selector, mode, max_loss, reason, notify } }));
}

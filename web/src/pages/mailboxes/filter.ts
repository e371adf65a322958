// Which mailboxes are shown, as the address bar says it.
import type { MailboxState } from "../../api/client";
import { MAILBOX_STATES } from "../../parts/State";

export interface Filter {
  state?: MailboxState;
  server?: string;
  group?: string;
  q?: string;
}

const NAMES = ["state", "server", "group", "q"] as const;

export function filterOf(search: URLSearchParams): Filter {
  const filter: Filter = {};
  for (const name of NAMES) {
    const value = search.get(name)?.trim();
    if (!value) continue;
    if (name === "state") {
      if (MAILBOX_STATES.includes(value as MailboxState)) filter.state = value as MailboxState;
    } else {
      filter[name] = value;
    }
  }
  return filter;
}

/** The address with one part of the filter changed; what else stands there stays. */
export function withPart(search: URLSearchParams, name: (typeof NAMES)[number], value: string | null): URLSearchParams {
  const next = new URLSearchParams(search);
  if (value?.trim()) next.set(name, value.trim());
  else next.delete(name);
  return next;
}

/** The filter in words, for a dialog that acts on all that match. */
export function inWords(filter: Filter): string {
  const parts = [
    filter.state && `whose state is ${filter.state.replaceAll("_", " ")}`,
    filter.server && `of server ${filter.server}`,
    filter.group && `in group ${filter.group}`,
    filter.q && `with “${filter.q}” in the address`,
  ].filter(Boolean);
  return parts.length === 0 ? "all protected mailboxes" : `every mailbox ${parts.join(", ")}`;
}

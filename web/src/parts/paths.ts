// Addresses of screens.
import type { MailboxState } from "../api/client";

export function mailboxPath(mailbox: { address: string; primary: string }): string {
  return `/mailboxes/${encodeURIComponent(mailbox.address)}?primary=${encodeURIComponent(mailbox.primary)}`;
}

export function statePath(state: MailboxState): string {
  return `/mailboxes?state=${state}`;
}

export function serverPath(name: string): string {
  return `/servers/${encodeURIComponent(name)}`;
}

export function policyPath(name: string): string {
  return `/policies/${encodeURIComponent(name)}`;
}

export function runPath(id: string): string {
  return `/runs/${id}`;
}

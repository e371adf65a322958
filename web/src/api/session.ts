// Who is in: somebody who logged in (a cookie that scripts cannot read, and a proof that requests are ours), or the token that this tab
// was given. A token lives as long as the tab, and is sent only to where the page came from.
import { useSyncExternalStore } from "react";

/** `/api/docs` reads it too. */
const KEY = "understudy.token";
const TENANT = "understudy.tenant";
const listeners = new Set<() => void>();
let refusal = "";

/** Who is logged in; `undefined` while it is not known, null for nobody. */
export interface Me {
  name: string;
  role: "viewer" | "operator" | "administrator" | "billing" | "auditor" | "user";
  mailbox?: string | null;
  /** Whom one acts for: one's own tenant, unless somebody of the provider chose another. */
  tenant: string;
  /** Belongs to those who run Understudy, not to a customer of theirs. */
  is_provider: boolean;
  session?: { csrf: string; second_factor: boolean; recovery_codes_left: number } | null;
}
let me: Me | null | undefined;

function changed(): void {
  listeners.forEach((listener) => listener());
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function token(): string | null {
  return sessionStorage.getItem(KEY);
}

/** What a request carries besides the cookie. */
export function credentials(method: string): Record<string, string> {
  const secret = token();
  const tenant = sessionStorage.getItem(TENANT);
  return {
    ...(secret ? { Authorization: `Bearer ${secret}` } : method === "GET" || !me?.session ? {} : { "Understudy-Csrf": me.session.csrf }),
    // A header carries bytes: those of UTF-8.
    ...(tenant ? { "Understudy-Tenant": String.fromCharCode(...new TextEncoder().encode(tenant)) } : {}),
  };
}

/** Asks everything for another tenant from now on, as the provider's people may; null for one's own. As long as the tab lives. */
export async function actFor(tenant: string | null): Promise<void> {
  const before = sessionStorage.getItem(TENANT);
  keep(tenant);
  const answer = await fetch("/api/v1/me", { headers: credentials("GET"), cache: "no-store" }).catch(() => null);
  if (answer?.ok) {
    me = (await answer.json()) as Me;
    changed();
    return;
  }
  keep(before);
  throw new Error(`Understudy does not let you act for ${tenant ?? "your own tenant"} now. Load the page again, and see whether the tenant is still there.`);
}

function keep(tenant: string | null): void {
  if (tenant === null) sessionStorage.removeItem(TENANT);
  else sessionStorage.setItem(TENANT, tenant);
}

/** Why nobody is in any more, for the page that asks. */
export function lastRefusal(): string {
  return refusal;
}

/** Somebody is in: logged in, or by this token. */
export function signIn(who: Me, given?: string): void {
  refusal = "";
  if (given) sessionStorage.setItem(KEY, given);
  me = who;
  changed();
}

/** Forgets who is in; the server ends a session by `DELETE /api/v1/sessions/current`. */
export function signOut(reason = ""): void {
  refusal = reason;
  sessionStorage.removeItem(KEY);
  keep(null);
  me = null;
  changed();
}

/** Leaves, also at the server. */
export async function leave(): Promise<void> {
  const headers = credentials("DELETE");
  if (!token()) await fetch("/api/v1/sessions/current", { method: "DELETE", headers }).catch(() => undefined);
  signOut();
}

/** Asks who is in, for a page just loaded. */
export async function recognise(): Promise<void> {
  const ask = () => fetch("/api/v1/me", { headers: credentials("GET"), cache: "no-store" }).catch(() => null);
  let answer = await ask();
  if (answer?.status === 404) {
    // The tenant acted for is gone.
    keep(null);
    answer = await ask();
  }
  if (answer?.ok) signIn((await answer.json()) as Me);
  else signOut();
}

export function useMe(): Me | null | undefined {
  return useSyncExternalStore(subscribe, () => me);
}

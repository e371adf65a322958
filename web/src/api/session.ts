// The token that this tab was given. It lives as long as the tab, and is sent only to where the page came from.
import { useSyncExternalStore } from "react";

/** `/api/docs` reads it too. */
const KEY = "understudy.token";
const listeners = new Set<() => void>();
let refusal = "";

export function token(): string | null {
  return sessionStorage.getItem(KEY);
}

/** Why the last token is gone, for the page that asks for another. */
export function lastRefusal(): string {
  return refusal;
}

export function signIn(given: string): void {
  refusal = "";
  sessionStorage.setItem(KEY, given);
  listeners.forEach((listener) => listener());
}

export function signOut(reason = ""): void {
  refusal = reason;
  sessionStorage.removeItem(KEY);
  listeners.forEach((listener) => listener());
}

export function useToken(): string | null {
  return useSyncExternalStore((listener) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, token);
}

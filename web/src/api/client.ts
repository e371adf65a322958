// Asks the REST API. Types come from the OpenAPI document; what goes wrong comes back as a `Refusal` with its remedy.
import createClient, { type Middleware } from "openapi-fetch";
import { heard } from "./pulse";
import type { components, paths } from "./schema";
import { credentials, signOut, token } from "./session";

export type Schema = components["schemas"];
export type Mailbox = Schema["Mailbox"];
export type MailboxState = Schema["MailboxState"];
export type Server = Schema["Server"];
export type Run = Schema["Run"];
export type Status = Schema["Status"];
export type Event = Schema["Event"];
export type Token = Schema["Token"];

type Problem = Schema["Problem"];

/** What the API says when it does not do something: why, and what to do about it. */
export class Refusal extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail);
    this.name = "Refusal";
  }

  get status(): number {
    return this.problem.status;
  }
}

/** Asked of another page than the one that answers: nothing came back, or something that is no problem document. */
function unexplained(status: number): Problem {
  const title = status === 0 ? "No answer" : "Unexpected answer";
  return {
    type: "about:blank",
    title,
    status,
    detail: status === 0 ? "Understudy did not answer" : `Understudy answered ${status} without a reason`,
    remedy: "check that it runs (`understudy status`), then try again",
  };
}

/** A name for one request, so that repeating it after a broken connection does nothing twice. `crypto.randomUUID` needs TLS. */
function key(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const middleware: Middleware = {
  onRequest({ request }) {
    Object.entries(credentials(request.method)).forEach(([name, value]) => request.headers.set(name, value));
    if (request.method === "POST") request.headers.set("Idempotency-Key", key());
    return request;
  },
  async onResponse({ request, response }) {
    if (response.ok) {
      heard();
      return response;
    }
    const problem = (await response.clone().json().catch(() => null)) as Problem | null;
    const known = problem && typeof problem.detail === "string" ? problem : unexplained(response.status);
    // Not what an earlier token was refused.
    const secret = token();
    if (response.status === 401 && request.headers.get("Authorization") === (secret ? `Bearer ${secret}` : null)) {
      signOut(`${known.detail}.`);
    }
    throw new Refusal(known);
  },
  onError({ error }) {
    // A question nobody waits for any more is no failure.
    return error instanceof DOMException && error.name === "AbortError" ? undefined : new Refusal(unexplained(0));
  },
};

/** The API, by its own paths. Its calls throw a `Refusal` and otherwise have `data`. */
export const api = createClient<paths>({ fetch: (request) => fetch(request, { cache: "no-store" }) });
api.use(middleware);

/** The body of an answer; every call above either has one or throws. */
export function body<A extends { data?: unknown }>(answer: A): NonNullable<A["data"]> {
  return answer.data as NonNullable<A["data"]>;
}

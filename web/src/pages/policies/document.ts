// A policy's document, as people fill it in.

export type Automatic = "off" | "shadow" | "on";

export interface Document {
  switchover: Automatic;
  threshold_seconds: number;
  hold_down_seconds: number;
  quorum: number;
  max_loss: number | null;
  switchback: "off" | "on";
  degradation: { latency_seconds: number; seconds: number } | null;
  priority: number;
  /** Members with a shape of their own, which are written as JSON. */
  maintenance: unknown;
  restart: unknown;
  before: unknown;
  after: unknown;
  brake: unknown;
}

/** What the API builds in; a policy that is not there yet begins with it. */
export const BUILT_IN: Document = {
  switchover: "off", threshold_seconds: 15, hold_down_seconds: 3600, quorum: 2, max_loss: null, switchback: "off",
  degradation: null, priority: 100, maintenance: [], restart: null, before: [], after: [], brake: {},
};

export const AS_JSON = ["maintenance", "restart", "before", "after", "brake"] as const;

/** The API fills in what a document does not say. */
export function documentOf(value: unknown): Document {
  return { ...BUILT_IN, ...(value as Partial<Document>) };
}

/** The members that are written as JSON, as text; and back, where it is JSON. */
export function textOf(document: Document): string {
  return JSON.stringify(Object.fromEntries(AS_JSON.map((name) => [name, document[name]])), null, 2);
}

export function withText(document: Document, text: string): Document {
  const given: unknown = JSON.parse(text);
  if (typeof given !== "object" || given === null || Array.isArray(given)) throw new Error("it is not an object");
  const rest = Object.fromEntries(Object.entries(document).filter(([name]) => !(AS_JSON as readonly string[]).includes(name)));
  return { ...rest, ...given } as Document;
}

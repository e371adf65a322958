// From bytes that ever went to bytes a second.

interface Counted {
  direction: string;
  kind: string;
  bytes: number;
}

/** What was reported, and when that was seen; of the first nobody knows how old it is. */
export interface Reported {
  at: number | null;
  bytes: Record<string, number>;
}

export interface Paced {
  /** Bytes a second by direction and kind. */
  rates: Record<string, number>;
  /** … over so many seconds. */
  seconds: number;
}

export const nameOf = ({ direction, kind }: { direction: string; kind: string }): string => `${direction} ${kind}`;

/** What a look makes of what was reported last: nothing new, or another report, and the pace since the one before. */
export function pace(last: Reported | null, bytes: Counted[], now: number): { last: Reported; paced: Paced | null } {
  const counted = Object.fromEntries(bytes.map((row) => [nameOf(row), row.bytes]));
  if (!last) return { last: { at: null, bytes: counted }, paced: null };
  const changed = Object.entries(counted).some(([name, value]) => value !== last.bytes[name]);
  if (!changed) return { last, paced: null };
  const next = { at: now, bytes: counted };
  if (last.at === null || now <= last.at) return { last: next, paced: null };
  const seconds = (now - last.at) / 1000;
  const rates = Object.entries(counted).map(([name, value]) => [name, Math.max(0, value - (last.bytes[name] ?? 0)) / seconds] as const);
  return { last: next, paced: { rates: Object.fromEntries(rates), seconds } };
}

// The minutes of a server's health, put together into bars of equal length.
import type { Schema } from "../../api/client";

export const HOURS = 6;
const BARS = 72;

export interface Bar {
  /** Milliseconds since 1970. */
  from: number;
  good: number;
  bad: number;
  reason: string;
}

export interface Row {
  observer: string;
  check: string;
  good: number;
  bad: number;
  /** In seconds. */
  mean: number;
  slowest: number;
  reason: string;
  bars: Bar[];
}

/** A row for each observer and kind of check, each ending now. */
export function bars(history: Schema["ServerHealth"]["history"], now: number): Row[] {
  const length = (HOURS * 3_600_000) / BARS;
  const begin = now - HOURS * 3_600_000;
  const rows = new Map<string, Row>();
  for (const minute of history) {
    const key = `${minute.observer} ${minute.check}`;
    let row = rows.get(key);
    if (!row) {
      const empty = Array.from({ length: BARS }, (_, index) => ({ from: begin + index * length, good: 0, bad: 0, reason: "" }));
      row = { observer: minute.observer, check: minute.check, good: 0, bad: 0, mean: 0, slowest: 0, reason: "", bars: empty };
      rows.set(key, row);
    }
    const looks = minute.good + minute.bad;
    row.mean = (row.mean * (row.good + row.bad) + minute.seconds_mean * looks) / Math.max(1, row.good + row.bad + looks);
    row.good += minute.good;
    row.bad += minute.bad;
    row.slowest = Math.max(row.slowest, minute.seconds_max);
    if (minute.reason) row.reason = minute.reason;
    const bar = row.bars[Math.min(BARS - 1, Math.max(0, Math.floor((Date.parse(minute.minute) - begin) / length)))];
    if (bar) {
      bar.good += minute.good;
      bar.bad += minute.bad;
      if (minute.reason) bar.reason = minute.reason;
    }
  }
  return [...rows.values()].sort((one, other) => `${one.observer} ${one.check}`.localeCompare(`${other.observer} ${other.check}`));
}

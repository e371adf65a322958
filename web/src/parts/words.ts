// Numbers and times as people read them.

const NUMBER = new Intl.NumberFormat("en");

export function count(value: number): string {
  return NUMBER.format(value);
}

/** `1 mailbox`, `2 mailboxes`. */
export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

export const mailboxes = (value: number): string => plural(value, "mailbox", "mailboxes");

export function duration(seconds: number): string {
  if (seconds <= 0) return "0 s";
  if (seconds < 0.0995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

export function ago(seconds: number): string {
  return seconds < 1 ? "just now" : `${seconds < 9.95 ? `${Math.round(seconds)} s` : duration(seconds)} ago`;
}

export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let rest = value;
  while (rest >= 1024 && unit < units.length - 1) {
    rest /= 1024;
    unit += 1;
  }
  return `${unit === 0 || rest >= 100 ? Math.round(rest) : rest.toFixed(1)} ${units[unit]}`;
}

/** A part of a sentence, as the API sends it, made into a whole one. */
export function whole(text: string): string {
  const trimmed = text.trim();
  if (trimmed === "") return "";
  // A command or a name (`mail-a: the server refused …`) is spelled as it is.
  const begun = /^(`|\S+:\s)/.test(trimmed) ? trimmed : trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

/** `missing_on_standby` as words. */
export function words(name: string): string {
  return name.replaceAll("_", " ");
}

/** `missing_on_standby` as the words of a heading. */
export function title(name: string): string {
  const text = words(name);
  return text.charAt(0).toUpperCase() + text.slice(1);
}

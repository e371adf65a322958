// Lists of addresses as people paste them.

/** Each address once, in the order given; what separates them does not matter. */
export function addressesIn(text: string): string[] {
  const found = text.split(/[\s,;]+/).map((part) => part.replace(/^[<"']+|[>"']+$/g, "")).filter(Boolean);
  return [...new Set(found)];
}

/** Whether a pasted or loaded text is a table whose first line names its columns. */
export function isTable(text: string): boolean {
  const first = text.split(/\r?\n/, 1)[0] ?? "";
  return first.split(/[,;\t]/).map((name) => name.trim().replace(/^"|"$/g, "").toLowerCase()).includes("address");
}

/** How many rows a table has, without its first line. */
export function rowsIn(text: string): number {
  return Math.max(0, text.split(/\r?\n/).filter((line) => line.trim() !== "").length - 1);
}

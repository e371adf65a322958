// A rule: patterns, one a line, that say who is meant; a pattern after `!` says who is not.

/** `*` is any text, `?` one character; case does not matter. */
function pattern(text: string): RegExp {
  const escaped = text.replace(/[.+^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*").replaceAll("?", ".");
  return new RegExp(`^${escaped}$`, "iu");
}

/** Whom a rule means, of these users. */
export function meant(rule: string, users: string[]): string[] {
  const lines = rule.split(/\r?\n/).map((line) => line.trim()).filter((line) => line !== "");
  const not = lines.filter((line) => line.startsWith("!")).map((line) => pattern(line.slice(1).trim()));
  const yes = lines.filter((line) => !line.startsWith("!")).map(pattern);
  return users.filter((user) => yes.some((one) => one.test(user)) && !not.some((one) => one.test(user)));
}

import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";

const read = (path: string): string => readFileSync(new URL(path, import.meta.url), "utf8");
/** What leads to a screen that no flow opens by its address. */
const LED_TO: Record<string, string> = { "/servers/new": '"Add the primary"', "/runs/:id": "/runs\\/", "/policies/:name": '"Write it"' };

test("every screen is opened by a flow in a browser", () => {
  const flows = readdirSync(new URL("../tests/", import.meta.url)).filter((name) => name.endsWith(".flow.ts")).map((name) => read(`../tests/${name}`)).join("\n");
  const screens = [...read("./screens.tsx").matchAll(/\{ path: "([^"]+)"/g)].map(([, path = ""]) => path);
  expect(screens.length).toBeGreaterThan(20);
  const unopened = screens.filter((path) => {
    const begin = path.replace(/:.*/, "");
    return !flows.includes(LED_TO[path] ?? (path === begin ? begin : `${begin}$`)) && !new RegExp(`goto\\("${begin}\\w`).test(flows);
  });
  expect(unopened).toEqual([]);
});

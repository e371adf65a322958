// The line between two sites: a site is invited, joins, is seen, gets limits and is revoked.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { Locator } from "@playwright/test";
import { accessible, env, expect, fits, signIn, test } from "./rig";

const run = promisify(execFile);
/** Until a source gateway has started, connected and reported; machines that run tests are slow and busy. */
const CONNECTED = { timeout: 120_000 };

test.use({ baseURL: process.env.UNDERSTUDY_SITES_URL });

/** A state there: colour, icon and word. */
const mark = (where: Locator, word: string) => where.locator(".state").filter({ hasText: word });

/** At the source site. */
async function join(command: string): Promise<string> {
  const { stdout } = await run(env("UNDERSTUDY_PROGRAM"), command.replace(/^understudy /, "").split(" "), {
    env: { ...process.env, UNDERSTUDY_CONFIG: env("UNDERSTUDY_SOURCE_CONFIG") },
  });
  return stdout;
}

test("a site is invited, joins, gets limits and is revoked", async ({ page }) => {
  test.setTimeout(420_000);
  await signIn(page, env("UNDERSTUDY_SITES_TOKEN"));
  await page.goto("/link");
  await expect(page.getByText("None yet. Invite the primaries' site")).toBeVisible();
  await expect(page.getByText("The source gateway has not said yet")).toBeVisible();

  await page.getByRole("button", { name: "Invite a site" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Where that site reaches this one").fill("http://nowhere");
  await dialog.getByRole("button", { name: "Make the token" }).click();
  await expect(dialog.getByText("Write it as https://HOST:PORT.")).toBeVisible();
  await dialog.getByLabel("Where that site reaches this one").fill(env("UNDERSTUDY_SITES_WAY"));
  await dialog.getByLabel("What that site will be called").fill("site-a");
  await accessible(page);
  await dialog.getByRole("button", { name: "Make the token" }).click();
  const command = await dialog.getByRole("region", { name: "Join" }).innerText();
  const fingerprint = await dialog.locator("p > code").first().innerText();
  expect(fingerprint).toMatch(/^([0-9A-F]{2}:){31}[0-9A-F]{2}$/i);
  await accessible(page);
  await dialog.getByRole("button", { name: "I have copied it" }).click();

  // Another one, worthless before it is used.
  await page.getByRole("button", { name: "Invite a site" }).click();
  await dialog.getByRole("button", { name: "Make the token" }).click();
  await dialog.getByRole("button", { name: "I have copied it" }).click();
  await page.getByRole("button", { name: "Withdraw the invitation of any site" }).click();
  await dialog.getByRole("button", { name: "Withdraw", exact: true }).click();
  await expect(dialog).toBeHidden();
  await expect(page.getByRole("button", { name: "Withdraw the invitation of any site" })).toBeHidden();
  await expect(page.getByRole("button", { name: "Withdraw the invitation of site-a" })).toBeVisible();

  // The other site joins, shows the same fingerprint, and its source gateway starts.
  expect(await join(command.trim())).toContain(fingerprint);
  const sites = page.getByRole("region", { name: "Paired sites, in the order they came" });
  const site = sites.getByRole("row").filter({ hasText: "site-a" });
  await expect(mark(site, "good")).toBeVisible(CONNECTED);
  await expect(site.getByText("90 days left; renews itself")).toBeVisible();
  await expect(page.getByRole("region", { name: "Open invitations" })).toBeHidden();
  const ways = page.getByRole("region", { name: "Ways, the best first" });
  await expect(mark(ways.getByRole("row").filter({ hasText: env("UNDERSTUDY_SITES_WAY") }), "used")).toBeVisible(CONNECTED);
  await expect(site.getByText("from 127.0.0.1")).toBeVisible();
  await expect(mark(page.locator(".head"), "connected")).toBeVisible();
  const wire = page.getByRole("region", { name: "Bytes by kind and direction" }).getByRole("table");
  await expect(wire.getByRole("row").filter({ hasText: "Heartbeats and reports" }).getByRole("cell").first()).toContainText(/\d/);

  await page.getByRole("button", { name: "Change…" }).click();
  await dialog.getByLabel("All that is sent here").fill("mon-fry: 2 MB/s");
  await dialog.getByLabel("First copies alone").fill("22:00-06:00: unlimited, else off");
  await dialog.getByRole("button", { name: "Set them" }).click();
  await expect(dialog.getByLabel("All that is sent here")).toHaveAttribute("aria-invalid", "true");
  await dialog.getByLabel("All that is sent here").fill("mon-fri 08:00-18:00: 2 MB/s, else unlimited");
  await dialog.getByRole("button", { name: "Set them" }).click();
  await expect(dialog).toBeHidden();
  await expect(page.locator("dd", { hasText: "mon-fri 08:00-18:00: 2 MB/s, else unlimited" })).toBeVisible();
  await accessible(page);
  await page.setViewportSize({ width: 390, height: 800 });
  await fits(page);
  await page.setViewportSize({ width: 1280, height: 860 });

  await page.getByRole("button", { name: "Revoke site-a" }).click();
  await dialog.getByLabel("Reason").fill("its disk was sold");
  await dialog.getByRole("button", { name: "Revoke", exact: true }).click();
  await expect(dialog).toBeHidden();
  await expect(mark(site, "revoked")).toBeVisible();
  await expect(page.getByRole("button", { name: "Revoke site-a" })).toBeHidden();
  await page.goto("/audit");
  await expect(page.getByText("its disk was sold").first()).toBeVisible();
});

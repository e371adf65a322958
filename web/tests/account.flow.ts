// One's own account with a second factor, and the audit that says who did what.
import { createHmac } from "node:crypto";
import { accessible, ask, expect, fits, signIn, test } from "./rig";

const NAME = "ann";
const PASSWORD = "correct horse battery";

/** The code that an app shows now (RFC 6238). */
function code(secret: string): string {
  const bits = [...secret].map((letter) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(letter).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(Array.from({ length: Math.floor(bits.length / 8) }, (_, index) => parseInt(bits.slice(index * 8, index * 8 + 8), 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000)));
  const digest = createHmac("sha1", key).update(counter).digest();
  const at = (digest[19] ?? 0) & 15;
  return String((digest.readUInt32BE(at) & 0x7fff_ffff) % 1_000_000).padStart(6, "0");
}

test("somebody sets up a second factor and is asked for it", async ({ page, request }) => {
  await ask(request, "POST", "/api/v1/users", { name: NAME, role: "auditor", password: PASSWORD });
  await page.goto("/");
  await page.getByRole("textbox", { name: "Name" }).fill(NAME);
  await page.getByRole("textbox", { name: "Password" }).fill(PASSWORD);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("link", { name: "Your account" }).click();
  await expect(page.getByRole("heading", { level: 1, name: "Your account" })).toBeVisible();
  await accessible(page);
  await page.getByLabel("Your password").fill(PASSWORD);
  await page.getByRole("button", { name: "Set it up" }).click();
  const key = await page.getByRole("region", { name: "The key" }).innerText();
  await accessible(page);
  await page.getByRole("textbox", { name: "Code" }).fill("1");
  await page.getByRole("button", { name: "Put it in force" }).click();
  await expect(page.getByRole("alert").first()).toBeVisible();
  await page.getByRole("textbox", { name: "Code" }).fill(code(key.trim()));
  await page.getByRole("button", { name: "Put it in force" }).click();
  const [recovery = ""] = (await page.getByRole("region", { name: "Recovery codes" }).innerText()).trim().split("\n");
  await expect(page.getByText("In force; 10 recovery codes are left.")).toBeVisible();
  await accessible(page);
  await page.setViewportSize({ width: 390, height: 800 });
  await fits(page);
  await page.setViewportSize({ width: 1280, height: 860 });

  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("textbox", { name: "Name" }).fill(NAME);
  await page.getByRole("textbox", { name: "Password" }).fill(PASSWORD);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("textbox", { name: "Code" }).fill("000000");
  await page.getByRole("button", { name: "Log in" }).click();
  await expect(page.getByRole("alert")).toBeVisible();
  await page.getByRole("textbox", { name: "Code" }).fill(recovery.trim());
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("link", { name: "Your account" }).click();
  await expect(page.getByText("In force; 9 recovery codes are left.")).toBeVisible();
});

test("the audit says who did what, is verified, and is exported", async ({ page }) => {
  await signIn(page);
  await page.goto("/audit");
  const entries = page.getByRole("region", { name: "Entries" });
  await expect(entries.getByRole("row").filter({ hasText: "token browser" }).filter({ hasText: "account added" })).toContainText(NAME);
  await page.getByRole("textbox", { name: "Action" }).fill("account");
  await expect(page).toHaveURL(/action=account/);
  await expect(entries.getByRole("row").filter({ hasText: "token added" })).toHaveCount(0);
  await page.getByRole("button", { name: "Verify the chain" }).click();
  await expect(page.getByRole("status").filter({ hasText: /^Whole: \d+ entries/ })).toBeVisible();
  await accessible(page);
  const saved = page.waitForEvent("download");
  await page.getByRole("button", { name: "CSV" }).click();
  expect((await saved).suggestedFilename()).toBe("audit.csv");
});

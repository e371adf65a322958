// What is to be done by itself, written by an administrator.
import { accessible, ask, expect, fits, signIn, test } from "./rig";

test("a policy is written, watches in shadow mode, and is removed", async ({ page, request }) => {
  await signIn(page);
  await page.goto("/policies");
  await expect(page.getByRole("link", { name: "default" }).first()).toBeVisible();
  await expect(page.getByText("No primary was found down for long enough yet")).toBeVisible();
  await accessible(page);
  await page.getByLabel("Name of the policy").fill("gold");
  await page.getByRole("button", { name: "Write it" }).click();
  await expect(page.getByText("It is not there yet")).toBeVisible();
  await page.getByLabel("Switchover by itself").selectOption("shadow");
  await page.getByLabel("So many observers must find it down").fill("0");
  await page.getByRole("button", { name: "Keep the policy" }).click();
  // What is wrong is said at its field.
  await expect(page.getByLabel("So many observers must find it down")).toHaveAttribute("aria-invalid", "true");
  await page.getByLabel("So many observers must find it down").fill("2");
  await page.getByLabel("Silent for so many seconds").fill("10");
  await page.getByLabel("Maintenance, restart, hooks, brake").fill("{ \"brake\": ");
  await page.getByRole("button", { name: "Keep the policy" }).click();
  await expect(page.getByText("This is not JSON")).toBeVisible();
  await page.getByLabel("Maintenance, restart, hooks, brake").fill("{ \"brake\": { \"share\": 0.2 } }");
  await page.getByRole("button", { name: "Keep the policy" }).click();
  await expect(page.getByText("Kept.")).toBeVisible();
  await accessible(page);
  const kept = await ask(request, "GET", "/api/v1/policies/gold");
  expect(kept).toMatchObject({ document: { switchover: "shadow", threshold_seconds: 10, quorum: 2, brake: { share: 0.2 } } });
  await page.goto("/policies");
  await expect(page.getByRole("row", { name: /gold/ })).toContainText("shadow");
  await page.setViewportSize({ width: 375, height: 800 });
  await fits(page);
  await page.setViewportSize({ width: 1280, height: 800 });
  await page.getByRole("link", { name: "gold" }).click();
  await page.getByRole("button", { name: "Remove…" }).click();
  await page.getByRole("button", { name: "Remove", exact: true }).click();
  await expect(page.getByRole("heading", { name: "Policies" })).toBeVisible();
  await expect(page.getByRole("link", { name: "gold" })).toHaveCount(0);
});

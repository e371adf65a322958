// What people are told and what protection costs: words changed and tried, prices set, usage exported, a month ready to print.
import { accessible, ask, expect, fits, picture, signIn, test } from "./rig";

test("prices are set, usage is exported, and a month can be printed", async ({ page, request }) => {
  await signIn(page);
  await page.goto("/billing");
  await expect(page.getByRole("heading", { name: "Billing" })).toBeVisible();
  await page.getByRole("button", { name: "Set prices…" }).click();
  const plan = { currency: "EUR", mailboxes: [{ price: "2.50" }], minimum: "10.00" };
  await page.getByRole("textbox", { name: "Prices" }).fill("{");
  await page.getByRole("button", { name: "Set them" }).click();
  await expect(page.getByText("This is not JSON")).toBeVisible();
  await page.getByRole("textbox", { name: "Prices" }).fill(JSON.stringify({ ...plan, minimum: 10 }));
  await page.getByRole("button", { name: "Set them" }).click();
  await expect(page.getByRole("alert").first()).toBeVisible();
  await page.getByRole("textbox", { name: "Prices" }).fill(JSON.stringify(plan));
  await page.getByRole("button", { name: "Set them" }).click();
  await expect(page.locator("dd", { hasText: "10.00 EUR" })).toBeVisible();
  await accessible(page);

  await page.getByLabel("From", { exact: true }).fill("2025-01-01");
  await page.getByLabel("To, included").fill("2025-01-31");
  await expect(page.getByRole("region", { name: "2025-01-01 to 2025-01-31" })).toBeVisible();
  const saved = page.waitForEvent("download");
  await page.getByRole("button", { name: "Export CSV" }).click();
  expect((await saved).suggestedFilename()).toBe("understudy-billing-2025-01-01-2025-01-31.csv");

  const { month } = await ask(request, "GET", "/api/v1/prices");
  await page.goto(`/billing/${month}`);
  await expect(page.getByRole("heading", { name: `Invoice ${month}` })).toBeVisible();
  await expect(page.getByText("by the day")).toBeVisible();
  await accessible(page);
  await picture(page, "invoice");
  await page.emulateMedia({ media: "print" });
  await expect(page.getByRole("navigation", { name: "Breadcrumb" })).toBeHidden();
  await expect(page.getByRole("button", { name: "Print" })).toBeHidden();
  await expect(page.getByRole("heading", { name: `Invoice ${month}` })).toBeVisible();
  await page.emulateMedia({ media: "screen" });
  await page.setViewportSize({ width: 390, height: 800 });
  await fits(page);
});

test("words are tried before they are kept, and go back to those built in", async ({ page }) => {
  await signIn(page);
  await page.goto("/notifications");
  await page.getByLabel("Topic").selectOption("switch_done");
  await page.getByRole("textbox", { name: "Subject" }).fill("{{ adress }} has moved");
  await page.getByRole("button", { name: "Preview" }).click();
  await expect(page.getByRole("textbox", { name: "Subject" })).toHaveAttribute("aria-invalid", "true");
  await page.getByRole("textbox", { name: "Subject" }).fill("{{ address }} has moved");
  await page.getByRole("button", { name: "Preview" }).click();
  const preview = page.getByRole("region", { name: "Preview" });
  await expect(preview).toContainText("ana@example.org has moved");
  await preview.getByText("HTML").click();
  await expect(preview).toContainText("<html lang=\"en\">");
  await accessible(page);
  await page.getByRole("button", { name: "Keep these words" }).click();
  await expect(page.getByText("your own words")).toBeVisible();
  await page.getByRole("button", { name: "Back to those built in" }).click();
  await expect(page.getByText("your own words")).toBeHidden();

  await page.getByLabel("Administrators").fill("ops@example.org, nobody");
  await page.getByRole("button", { name: "Keep", exact: true }).click();
  await expect(page.getByText("is no mail address").first()).toBeVisible();
  await page.getByLabel("Administrators").fill("ops@example.org");
  await page.getByRole("button", { name: "Keep", exact: true }).click();
  await expect(page.getByText("Kept.")).toBeVisible();
  await expect(page.getByRole("region", { name: "Delivery log, newest first" })).toBeVisible();
  await page.setViewportSize({ width: 390, height: 800 });
  await fits(page);
});

// Groups, the map, the settings, and whose they are: what somebody who runs Understudy for others looks at.
import { accessible, env, expect, fits, signIn, test } from "./rig";

const HEARD = { timeout: 120_000 };
/** Not every tenant is written in ASCII. */
const TENANT = "hösted.example";

test.use({ baseURL: process.env.UNDERSTUDY_MANY_URL });

test.beforeEach(async ({ page }) => signIn(page, env("UNDERSTUDY_MANY_TOKEN")));

test("a group is chosen among those there are: in the filter, for a switchover, when protecting", async ({ page, request }) => {
  const headers = { Authorization: `Bearer ${env("UNDERSTUDY_MANY_TOKEN")}` };
  for (const user of ["user40001", "user40002"]) {
    const path = `${env("UNDERSTUDY_MANY_URL")}/api/v1/mailboxes/${user}@example.org`;
    expect((await request.patch(path, { headers, data: { group: "finance" } })).ok()).toBe(true);
  }
  await page.goto("/mailboxes");
  await page.getByLabel("Group").selectOption({ label: "finance (2)" });
  await expect(page).toHaveURL(/group=finance/);
  await expect(page.getByRole("row").filter({ hasText: "user40002@example.org" })).toBeVisible();
  await expect(page.getByRole("row").filter({ hasText: "user40003@example.org" })).toHaveCount(0);
  await accessible(page);

  await page.goto("/switchover");
  await page.getByRole("radio", { name: "A group" }).check();
  await page.getByRole("combobox", { name: "Group" }).selectOption("finance");
  await expect(page.getByText("user40001@example.org").first()).toBeVisible(HEARD);
  await accessible(page);

  await page.goto("/protect");
  await expect(page.locator('datalist option[value="finance"]')).toBeAttached();
});

test("the map shows which primary is mirrored to which standby", async ({ page }) => {
  await page.goto("/map");
  const table = page.getByRole("region", { name: "Mirrors as a table" });
  const row = table.getByRole("row").filter({ hasText: "mail-a" });
  await expect(row).toContainText("dr-1");
  await expect(row).toContainText("50,000");
  await expect(row).toContainText("50,000 to the standby");
  await expect(row).toContainText("seeding");
  await expect(row).toContainText("nothing waits");
  await expect(page.getByRole("img", { name: /1 primary on the left, 1 standby on the right/ })).toBeVisible();
  await accessible(page);
  await page.setViewportSize({ width: 360, height: 740 });
  await fits(page);
});

test("settings say where each value comes from, and where it is changed", async ({ page }) => {
  await page.goto("/settings");
  const configuration = page.getByRole("region", { name: "Configuration", exact: true });
  await expect(configuration.getByRole("row").filter({ hasText: "verify.every" })).toContainText(/24h.*built in/);
  await expect(configuration.getByRole("row").filter({ hasText: "admin.listen" })).toContainText(/the file, .*understudy\.toml:5/);
  await expect(configuration.getByRole("row").filter({ hasText: "content.keep" })).toContainText("30d");
  await expect(page.getByRole("region", { name: "Notices" })).toContainText("15 minutes");
  await accessible(page);
  await page.getByRole("link", { name: "Change the notices" }).click();
  await expect(page.getByRole("heading", { level: 1, name: "Notifications" })).toBeVisible();
});

test("the provider's administrator acts for a customer, and sees the customer's alone", async ({ page, request }) => {
  const headers = { Authorization: `Bearer ${env("UNDERSTUDY_MANY_TOKEN")}` };
  const made = await request.post(`${env("UNDERSTUDY_MANY_URL")}/api/v1/tenants`, { headers, data: { name: TENANT } });
  expect([201, 409]).toContain(made.status());
  await page.goto("/map");
  await expect(page.getByRole("region", { name: "Mirrors as a table" })).toBeVisible();
  const tenant = page.getByLabel("Tenant");
  await tenant.selectOption(TENANT);
  await expect(page.getByText(`You act for ${TENANT}.`)).toBeVisible();
  await expect(page.getByText("No mailbox is protected yet, so nothing is mirrored.")).toBeVisible();
  await accessible(page);
  // Also after the page was loaded again; and back at one's own.
  await page.reload();
  await expect(page.getByText(`You act for ${TENANT}.`)).toBeVisible();
  await tenant.selectOption({ label: "default (your own)" });
  await expect(page.getByRole("region", { name: "Mirrors as a table" })).toContainText("50,000");
  await expect(page.getByText("You act for")).toHaveCount(0);
});

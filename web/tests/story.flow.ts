// The story of an administrator who has never seen Understudy: from the first look to users moved and brought home. Each screen
// is looked at as it is met, in light and dark.
import { accessible, append, ask, env, expect, fits, imap, picture, signIn, test, Way } from "./rig";

test.describe.configure({ mode: "serial" });
/** What the first screen takes over the network, compressed. */
const FIRST_LOAD_BYTES = 300_000;
const ana = "ana@example.org";

test("a token opens the door, a wrong one does not", async ({ page }) => {
  await page.goto("/");
  await expect(page.getByRole("heading", { name: "Understudy" })).toBeVisible();
  await accessible(page);
  await page.getByLabel("Token", { exact: true }).fill("understudy_wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByText("This token is not known")).toBeVisible();
  await page.getByLabel("Token", { exact: true }).fill(env("UNDERSTUDY_TOKEN"));
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByText("No mail server is known yet")).toBeVisible();
  await expect(page.getByText("live", { exact: true })).toBeVisible();
  // It stays in this tab over a reload, and goes when asked to.
  await page.reload();
  await expect(page.getByRole("heading", { name: "Overview" })).toBeVisible();
  await page.getByRole("button", { name: "Sign out" }).click();
  await expect(page.getByLabel("Token", { exact: true })).toBeVisible();
});

test("the first steps lead to two checked servers", async ({ page }) => {
  await signIn(page);
  await page.goto("/mailboxes");
  await expect(page.getByText("No mailbox is protected yet")).toBeVisible();
  await accessible(page);
  await page.goto("/protect");
  await expect(page.getByText("Two servers are needed first")).toBeVisible();
  await page.goto("/");
  await accessible(page);
  await expect(page.getByRole("listitem").filter({ hasText: "Connect the gateways" })).toContainText("done");
  await page.getByRole("link", { name: "Add the primary" }).click();
  await page.getByRole("textbox", { name: "Name" }).fill("mail-a");
  await page.getByLabel("IMAP address").fill("http://mail-a.example.org");
  await page.getByRole("textbox", { name: "User", exact: true }).fill(env("MASTER"));
  await page.getByRole("textbox", { name: "Password file", exact: true }).fill(env("PRIMARY_PASSWORD_FILE"));
  await page.getByText("More:").click();
  await page.getByLabel("Log-in for the way home").selectOption("each");
  await page.getByLabel("Password file for the way home").fill(env("PRIMARY_PASSWORDS"));
  await page.getByRole("button", { name: "Add the server" }).click();
  // What is wrong is said at its field.
  await expect(page.getByLabel("IMAP address")).toHaveAttribute("aria-invalid", "true");
  await accessible(page);
  await page.getByLabel("IMAP address").fill(env("PRIMARY_URL"));
  await page.getByRole("button", { name: "Add the server" }).click();
  await expect(page.getByRole("heading", { name: "mail-a" })).toBeVisible();
  await page.getByLabel("Log in as this user too").fill(ana);
  await page.getByRole("button", { name: "Check now" }).click();
  await expect(page.getByText("Checked; the findings are below.")).toBeVisible();
  await expect(page.getByRole("row", { name: /^ok QRESYNC/ })).toBeVisible();
  await accessible(page);

  await page.goto("/");
  await page.getByRole("link", { name: "Add the standby" }).click();
  await expect(page.getByLabel("Standby: it is to hold the mirror")).toBeChecked();
  await page.getByRole("textbox", { name: "Name" }).fill("dr-1");
  await page.getByLabel("IMAP address").fill(env("STANDBY_URL"));
  await page.getByRole("textbox", { name: "User", exact: true }).fill(env("MASTER"));
  await page.getByRole("textbox", { name: "Password file", exact: true }).fill(env("STANDBY_PASSWORD_FILE"));
  await page.getByRole("button", { name: "Add the server" }).click();
  await page.getByRole("button", { name: "Check now" }).click();
  await expect(page.getByText("Checked; the findings are below.")).toBeVisible();
  await page.getByRole("link", { name: "Servers" }).first().click();
  await expect(page.getByRole("article")).toHaveCount(2);
  await accessible(page);
});

test("mailboxes are protected: typed, from a table, and as the server names them", async ({ page, request }) => {
  await signIn(page);
  await page.goto("/");
  await expect(page.getByRole("listitem").filter({ hasText: "Check both" })).toContainText("done");
  await page.getByRole("link", { name: "Protect mailboxes" }).last().click();
  await page.getByLabel("Addresses").fill(`${ana}\nbob@example.org, nobody@example.org`);
  await expect(page.getByText("3 mailboxes of mail-a are mirrored to dr-1")).toBeVisible();
  // How much that is, before anything is done: two can be looked at, one is not there.
  const plan = { currency: "EUR", mailboxes: [{ price: "2.50" }] };
  await ask(request, "PUT", "/api/v1/prices", { plan });
  await page.getByRole("button", { name: "Estimate size, time and price" }).click();
  const estimate = page.getByRole("region", { name: "Estimate" });
  await expect(estimate).toContainText("from 2 that were looked at", { timeout: 120_000 });
  await expect(estimate).toContainText("in 90 messages");
  await expect(estimate).toContainText("7.50 EUR more each whole month");
  await expect(estimate).toContainText("nobody@example.org");
  await accessible(page);
  await picture(page, "protect");
  await page.getByRole("button", { name: "Protect 3 mailboxes" }).click();
  await expect(page.getByText("3 mailboxes are protected now.")).toBeVisible();
  await expect(page.getByRole("listitem").filter({ hasText: ana })).toContainText("mirroring");
  await expect(page.getByRole("listitem").filter({ hasText: "nobody@example.org" })).toContainText("faulted");
  await accessible(page);

  await page.getByRole("button", { name: "Protect more" }).click();
  await page.getByText("CSV file").click();
  await page.getByLabel("Its contents").fill("address,group\ncleo@example.org,board\nnot an address at all,\n");
  await page.getByRole("button", { name: "Protect 2 mailboxes" }).click();
  await expect(page.getByText("1 mailbox is protected now.")).toBeVisible();
  await expect(page.getByText("Left out: 1")).toBeVisible();

  // A server that has its users' passwords can name them; one with a master user says that it cannot.
  const login = { as: "each", password_file: env("PRIMARY_PASSWORDS") };
  await ask(request, "POST", "/api/v1/servers", { name: "mail-b", role: "primary", imap: env("PRIMARY_URL"), login });
  await page.goto("/protect");
  await page.getByText("Ask the server").click();
  await page.getByRole("button", { name: "Ask mail-a for its users" }).click();
  await expect(page.getByRole("status").filter({ hasText: /cannot|each/ })).toBeVisible();
  await page.getByLabel("Primary", { exact: true }).selectOption("mail-b");
  await page.getByRole("button", { name: "Ask mail-b for its users" }).click();
  await expect(page.getByText("5 mailboxes, 0 protected already")).toBeVisible();
  await page.getByText("By a rule").click();
  await page.getByRole("textbox", { name: "Rule" }).fill("*@example.org\n!?o*");
  await page.getByRole("button", { name: "Choose whom it means: 3" }).click();
  await expect(page.getByText("3 mailboxes chosen")).toBeVisible();
  await accessible(page);
  await page.getByRole("button", { name: "Choose none" }).click();
  await page.getByLabel("eve@example.org").check();
  await accessible(page);
  await expect(page.getByRole("button", { name: "Protect 1 mailbox" })).toBeEnabled();
});

test("the overview says how things are and what needs a person", async ({ page }) => {
  await signIn(page);
  await page.goto("/");
  await expect(page.getByRole("heading", { name: "Overview" })).toBeVisible();
  const loaded = await page.evaluate(() => (performance.getEntries() as PerformanceResourceTiming[])
    .filter((entry) => ["navigation", "resource"].includes(entry.entryType) && !entry.name.includes("/api/") && !entry.name.endsWith("/metrics"))
    .reduce((sum, entry) => sum + entry.encodedBodySize, 0));
  expect(loaded).toBeGreaterThan(100_000);
  expect(loaded).toBeLessThan(FIRST_LOAD_BYTES);
  await expect(page.getByText(/^1 of 4 mailboxes .*stopped by an error/)).toBeVisible();
  const attention = page.getByRole("region", { name: "Needs a person" });
  await expect(attention).toContainText("nobody@example.org");
  await expect(page.getByRole("img", { name: /^Throughput: now/ })).toBeVisible();
  await expect(page.getByRole("img", { name: /^Lag: now/ })).toBeVisible();
  await accessible(page);
  await picture(page, "overview");
  await page.setViewportSize({ width: 390, height: 844 });
  await fits(page);
  await accessible(page);
  await page.getByRole("button", { name: "Menu" }).click();
  await page.getByRole("link", { name: "Mailboxes", exact: true }).click();
  await expect(page.getByRole("row").filter({ hasText: ana })).toBeVisible();
  await fits(page);
});

test("a server says whether it is there, and what was seen of it", async ({ page }) => {
  await signIn(page);
  await page.goto("/servers/mail-a");
  const health = page.getByRole("region", { name: "Is it there?" });
  // Servers are watched once mailboxes use them.
  await expect(health).toContainText("up", { timeout: 120_000 });
  await expect(health.getByRole("img", { name: /^recovery, quick checks/ })).toBeVisible({ timeout: 120_000 });
  await accessible(page);
});

test("mailboxes are found, chosen and acted on together", async ({ page }) => {
  await signIn(page);
  await page.goto("/mailboxes?state=faulted");
  await expect(page.getByRole("row").filter({ hasText: "nobody@example.org" })).toBeVisible();
  await expect(page.getByRole("row").filter({ hasText: ana })).toHaveCount(0);
  await page.getByLabel("State").selectOption("any");
  await page.getByLabel("Address contains").fill("bob");
  await expect(page).toHaveURL(/q=bob/);
  await expect(page.getByText("1 of 4 mailboxes match")).toBeVisible();
  await page.getByLabel("Address contains").fill("zzz");
  await expect(page.getByText("No mailbox is like that.")).toBeVisible();
  await page.getByRole("button", { name: "Show all" }).click();
  await expect(page.getByRole("row").filter({ hasText: ana })).toBeVisible();
  await accessible(page);

  await page.getByLabel(`Choose ${ana}`).check();
  await page.getByLabel("Choose bob@example.org").check();
  await page.getByRole("button", { name: "Pause" }).click();
  await expect(page.getByRole("dialog", { name: "Pause 2 mailboxes?" })).toBeVisible();
  await accessible(page);
  await page.getByLabel("Reason").fill("a flow in a browser");
  await page.getByRole("dialog").getByRole("button", { name: "Pause" }).click();
  await expect(page.getByRole("dialog")).toHaveCount(0);
  await page.goto("/mailboxes?state=paused");
  await expect(page.getByText("2 of 4 mailboxes match")).toBeVisible();
  await page.getByLabel("Choose all shown").check();
  await expect(page.getByText("2 mailboxes: every mailbox whose state is paused")).toBeVisible();
  await page.getByRole("button", { name: "Resume" }).click();
  await expect(page.getByRole("dialog", { name: "Resume 2 mailboxes?" })).toBeVisible();
  await page.getByRole("dialog").getByRole("button", { name: "Resume" }).click();
  await expect(page.getByText("No mailbox is like that.")).toBeVisible();

  await page.goto("/mailboxes?state=mirroring");
  await expect(page.getByText("3 of 4 mailboxes match")).toBeVisible();
  await page.getByLabel("Choose all shown").check();
  await page.getByRole("button", { name: "Verify" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Verify" }).click();
  await expect(page).toHaveURL(/\/runs\//);
  await expect(page.getByText("3 of 3 mailboxes are the same on both sides.")).toBeVisible({ timeout: 120_000 });
  await accessible(page);
});

test("a mailbox shows its pipeline live, its history and its differences", async ({ page }) => {
  await signIn(page);
  await page.goto(`/mailboxes/${encodeURIComponent(ana)}?primary=mail-a`);
  const applied = page.getByRole("region", { name: "Pipeline" }).getByRole("listitem").filter({ hasText: "Applied" }).locator(".count");
  await expect(page.getByText("Nothing waits")).toBeVisible();
  const before = Number(await applied.textContent());
  await append("PRIMARY", ana, "seen at once");
  await expect.poll(async () => Number(await applied.textContent())).toBeGreaterThan(before);
  await accessible(page);
  await page.getByRole("button", { name: "Pause" }).click();
  await expect(page.getByRole("button", { name: "Resume" })).toBeVisible();
  await page.getByRole("button", { name: "Resume" }).click();
  await expect(page.getByRole("button", { name: "Pause" })).toBeVisible();
  await page.getByRole("tab", { name: "History" }).click();
  await expect(page.getByRole("region", { name: "Events" })).toContainText("It was paused");
  await expect(page.getByRole("region", { name: "Runs" })).toContainText("Pause");
  await accessible(page);

  await page.getByRole("tab", { name: "Set aside" }).click();
  await expect(page.getByText("None: the standby holds every message as it is.")).toBeVisible();
  await page.getByRole("tab", { name: "Verification" }).click();
  await imap("STANDBY", ana, ["SELECT INBOX", "STORE 1 +FLAGS.SILENT (\\Flagged)"]);
  await page.getByRole("button", { name: "Verify now" }).click();
  await expect(page.getByRole("cell", { name: "Flags" })).toBeVisible({ timeout: 120_000 });
  await accessible(page);
  // Its own page, with a change to be made and the keyboard's way elsewhere.
  await page.getByRole("button", { name: "More" }).click();
  await page.getByRole("menuitem", { name: "Change group or policy" }).click();
  await page.getByRole("combobox", { name: "Group" }).fill("board");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByRole("tab", { name: "Now" }).click();
  await expect(page.getByRole("definition").filter({ hasText: "board" })).toBeVisible();
});

test("a mailbox shows its folders on both sides, its transactions, and where its user is told", async ({ page, request }) => {
  await signIn(page);
  await page.goto(`/mailboxes/${encodeURIComponent(ana)}?primary=mail-a`);
  await expect(page.getByText("Nothing waits")).toBeVisible();
  // Both sides, folder by folder; a name made to be run stays text.
  const script = "<img src=x onerror=alert(1)>";
  await imap("PRIMARY", ana, [`CREATE "${script}"`]);
  // New folders are found by the next look at all of them, which this asks for.
  await ask(request, "POST", `/api/v1/mailboxes/${ana}/barrier`, {});
  await page.getByRole("tab", { name: "Transactions" }).click();
  const journal = page.getByRole("region", { name: "Transactions, newest first" });
  await expect(journal).toContainText("1 folder created", { timeout: 120_000 });
  await expect(journal).toContainText("(first copy)");
  await expect(journal.getByRole("row").filter({ hasText: "1 message added" }).first()).toBeVisible();
  await accessible(page);
  await page.getByRole("tab", { name: "Folders" }).click();
  const folders = page.getByRole("region", { name: "Folders of both sides" });
  await expect(folders.getByRole("row").filter({ hasText: script })).toBeVisible({ timeout: 120_000 });
  await expect(page.locator('img[src="x"]')).toHaveCount(0);
  await expect(folders.getByRole("row").filter({ hasText: "INBOX" }).getByRole("cell", { name: "31", exact: true })).toHaveCount(2);
  await accessible(page);
  await picture(page, "mailbox");
  await page.setViewportSize({ width: 390, height: 844 });
  await fits(page);
  await page.setViewportSize({ width: 1280, height: 860 });
  await page.getByRole("button", { name: "More" }).click();
  await page.getByRole("menuitem", { name: "Where the user is told" }).click();
  await page.getByLabel("Alternate address").fill("ana@example.net");
  await accessible(page);
  await page.getByRole("dialog").getByRole("button", { name: "Save" }).click();
  await expect(page.getByRole("dialog")).toHaveCount(0);
});

test("a repair makes the sides equal again", async ({ page }) => {
  await signIn(page);
  await page.goto(`/mailboxes/${encodeURIComponent(ana)}?primary=mail-a&tab=verify`);
  await page.getByRole("button", { name: "Repair" }).click();
  await expect(page.getByRole("dialog", { name: /Make the standby equal/ })).toBeVisible();
  await accessible(page);
  await page.getByRole("dialog").getByRole("button", { name: "Repair" }).click();
  await expect(page.getByText("are the same on both sides")).toBeVisible({ timeout: 120_000 });
});

test("users are moved to the standby and brought home", async ({ page }) => {
  await signIn(page);
  await page.goto(`/mailboxes/${encodeURIComponent(ana)}?primary=mail-a`);
  await page.getByRole("link", { name: "Switch over…" }).click();
  await expect(page.getByRole("heading", { name: "Switchover" })).toBeVisible();
  await expect(page.getByText("1 mailbox will work on dr-1")).toBeVisible();
  await page.getByText("What they read").click();
  await expect(page.getByRole("region", { name: "Before" })).toContainText("Your mailbox is being moved");
  await expect(page.getByRole("region", { name: "After" })).toContainText("Nothing was lost");
  await accessible(page);
  await picture(page, "switchover");
  await page.getByLabel("Emergency").check();
  await expect(page.getByText("Type 1 to go on")).toBeVisible();
  await expect(page.getByRole("button", { name: /Switch over 1 mailbox now/ })).toBeDisabled();
  await accessible(page);
  await page.setViewportSize({ width: 390, height: 844 });
  await fits(page);
  await accessible(page);
  await page.getByLabel("Planned").check();
  await page.getByLabel("Reason").fill("a rehearsal");
  await page.getByRole("button", { name: "Switch over 1 mailbox" }).click();
  await expect(page.getByText("1 mailbox moved")).toBeVisible({ timeout: 120_000 });
  await expect(page.getByRole("region", { name: "Steps" })).toContainText("Flip");
  await picture(page, "run-phone");
  await fits(page);
  await accessible(page);
  await page.setViewportSize({ width: 1280, height: 860 });

  await page.getByRole("link", { name: ana }).first().click();
  await expect(page.getByText("the user works on the standby")).toBeVisible();
  await append("STANDBY", ana, "written while away");
  await page.getByRole("link", { name: "Switch back…" }).click();
  await page.getByRole("button", { name: "Only say what would change" }).click();
  await expect(page.getByText("Would change on the primary")).toBeVisible({ timeout: 120_000 });
  await accessible(page);
  await page.goto(`/switchback?address=${encodeURIComponent(ana)}&primary=mail-a`);
  await accessible(page);
  await page.getByRole("button", { name: "Switch back 1 mailbox" }).click();
  await expect(page.getByText("1 mailbox moved")).toBeVisible({ timeout: 120_000 });
  expect(await imap("PRIMARY", ana, ["SELECT INBOX", 'SEARCH SUBJECT "written while away"'])).toMatch(/\* SEARCH \d+/);
});

test("users are told ahead of a switchover that is to come", async ({ page }) => {
  await signIn(page);
  await page.goto("/switchover?server=mail-a");
  await expect(page.getByText(/will work on dr-1/)).toBeVisible();
  await page.getByText("Tell them ahead").click();
  await page.getByLabel("When it will begin").fill("Saturday, 22:00");
  await expect(page.getByRole("region", { name: "Ahead" })).toContainText("moves to the standby server");
  await page.getByRole("button", { name: "Tell them" }).click();
  await expect(page.getByText(/^The users of \d mailboxes are being told\.$/)).toBeVisible();
  await accessible(page);
});

test("a mailbox held by the brake is shown with what is at stake, and let go", async ({ page, request }) => {
  const dora = "dora@example.org";
  await ask(request, "POST", "/api/v1/mailboxes", { addresses: [dora], primary: "mail-a", standby: "dr-1" });
  await signIn(page);
  await page.goto(`/mailboxes/${encodeURIComponent(dora)}?primary=mail-a`);
  await expect(page.locator(".head").getByText("mirroring")).toBeVisible();
  await imap("PRIMARY", dora, ["SELECT INBOX", "STORE 1:* +FLAGS.SILENT (\\Deleted)", "EXPUNGE"]);
  const held = page.getByRole("region", { name: "Held by the brake" });
  await expect(held).toContainText("Going on would remove 30 messages");
  await expect(held.getByRole("row").filter({ hasText: "INBOX" })).toContainText("30");
  await accessible(page);
  await page.getByRole("button", { name: "It was not meant" }).click();
  await expect(page.getByRole("dialog", { name: "Keep them on the standby?" })).toBeVisible();
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: "It was meant" }).click();
  await page.getByLabel("Type 30 to go on").fill("30");
  await accessible(page);
  await page.getByRole("button", { name: "Remove and go on" }).click();
  await expect(page.getByRole("heading", { name: "Release" })).toBeVisible();
  await page.getByRole("link", { name: dora }).first().click();
  await expect(page.locator(".head").getByText("mirroring")).toBeVisible();
  await expect.poll(() => imap("STANDBY", dora, ["SELECT INBOX"])).toContain("* 0 EXISTS");
});

test("events, runs and tokens are kept and shown", async ({ page, browser }) => {
  await signIn(page);
  await page.goto("/events");
  await expect(page.getByRole("region", { name: "Events" })).toContainText("Server mail-b was added");
  await page.getByLabel("Kind").selectOption("protected");
  await expect(page).toHaveURL(/kind=protected/);
  await expect(page.getByRole("region", { name: "Events" })).not.toContainText("was added");
  await accessible(page);
  await page.goto("/runs?kind=check");
  await expect(page.getByRole("cell", { name: "mail-a" }).first()).toBeVisible();
  await accessible(page);
  await page.goto("/tokens");
  await page.getByRole("button", { name: "Make a token" }).click();
  await accessible(page);
  await page.getByRole("textbox", { name: "Name" }).fill("wall");
  await page.getByRole("button", { name: "Make it" }).click();
  const secret = await page.getByRole("region", { name: "The token" }).textContent();
  await accessible(page);
  await page.getByRole("button", { name: "I have copied it" }).click();
  const row = page.getByRole("row").filter({ hasText: "wall" });
  await expect(row).toContainText("valid");

  // A viewer looks; what it may not do is refused with a reason.
  const other = await browser.newContext();
  const viewer = await other.newPage();
  await signIn(viewer, secret?.trim());
  await viewer.goto(`${env("UNDERSTUDY_URL")}/tokens`);
  await expect(viewer.getByText("the role `viewer` may not do this".replaceAll("`", ""), { exact: false })).toBeVisible();
  await accessible(viewer);
  await row.getByRole("button", { name: "Revoke wall" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
  await expect(row).toContainText("revoked");
  await accessible(page);
  await viewer.reload();
  await expect(viewer.getByLabel("Token", { exact: true })).toBeVisible();
  await other.close();
});

test("the keyboard leads everywhere", async ({ page }) => {
  await signIn(page);
  await page.goto("/");
  await expect(page.getByText("live", { exact: true })).toBeVisible();
  await page.keyboard.press("Tab");
  await expect(page.getByRole("link", { name: "Skip to the content" })).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(page.locator("main")).toBeFocused();
  await page.keyboard.press("g");
  await page.keyboard.press("m");
  await expect(page.getByRole("heading", { name: "Mailboxes" })).toBeFocused();
  await page.keyboard.press("/");
  await expect(page.getByLabel("Address contains")).toBeFocused();
  await page.keyboard.press("Escape");
  await page.getByRole("heading", { name: "Mailboxes" }).focus();
  await page.keyboard.press("?");
  await expect(page.getByRole("dialog", { name: "Keyboard shortcuts" })).toBeVisible();
  await accessible(page);
  await page.keyboard.press("Escape");
  await expect(page.getByRole("dialog")).toHaveCount(0);
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox", { name: "Mailbox or screen" }).fill("cleo");
  await expect(page.getByRole("option", { name: "cleo@example.org" })).toBeVisible();
  await accessible(page);
  await page.keyboard.press("Enter");
  await expect(page.getByRole("heading", { name: "cleo@example.org" })).toBeVisible();
});

test("silence is said, and ends by itself", async ({ page }) => {
  const way = new Way();
  await way.mend();
  await signIn(page);
  await page.goto(`${way.url}/mailboxes`);
  await expect(page.getByText("live", { exact: true })).toBeVisible();
  await expect(page.getByRole("row").filter({ hasText: ana })).toBeVisible();
  way.cut();
  await expect(page.getByText(/^stale since/)).toBeVisible({ timeout: 120_000 });
  // What was known stays to be seen.
  await expect(page.getByRole("row").filter({ hasText: ana })).toBeVisible();
  await accessible(page);
  await way.mend();
  await expect(page.getByText("live", { exact: true })).toBeVisible({ timeout: 120_000 });
  way.cut();
});

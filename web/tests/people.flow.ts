// Who logs in with an account: an administrator adds the user of a mailbox, who then sees that mailbox and nothing else.
import { accessible, env, expect, signIn, test } from "./rig";

const NAME = "user00007@example.org";
const PASSWORD = "correct horse battery";

test("a mailbox's user is added, logs in, and is at their own mailbox", async ({ page, browser }) => {
  await signIn(page, env("UNDERSTUDY_MANY_TOKEN"));
  await page.goto(`${env("UNDERSTUDY_MANY_URL")}/people`);
  await page.getByRole("button", { name: "Add somebody" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("textbox", { name: "Name" }).fill(NAME);
  await dialog.getByLabel("Role").selectOption("user");
  await dialog.getByRole("textbox", { name: "Mailbox" }).fill(NAME);
  await dialog.getByRole("textbox", { name: "Password" }).fill(PASSWORD);
  await dialog.getByRole("button", { name: "Add", exact: true }).click();
  await expect(dialog).toBeHidden();
  await expect(page.getByRole("cell", { name: NAME }).first()).toBeVisible();
  await accessible(page);

  const theirs = await (await browser.newContext({ reducedMotion: "reduce" })).newPage();
  await theirs.goto(env("UNDERSTUDY_MANY_URL"));
  await theirs.getByRole("textbox", { name: "Name" }).fill(NAME);
  await theirs.getByRole("textbox", { name: "Password" }).fill("not the password");
  await theirs.getByRole("button", { name: "Log in" }).click();
  await expect(theirs.getByRole("alert")).toBeVisible();
  await theirs.getByRole("textbox", { name: "Password" }).fill(PASSWORD);
  await theirs.getByRole("button", { name: "Log in" }).click();
  await expect(theirs.getByRole("heading", { name: NAME })).toBeVisible();
  await expect(theirs.getByText("You work on the primary server.")).toBeVisible();
  await expect(theirs.getByRole("navigation", { name: "Screens" }).getByRole("link")).toHaveText(["Your mailbox", "Your account", "REST API"]);
  await accessible(theirs);
  // The log-in is a cookie: it survives the page, and ends with it.
  await theirs.reload();
  await expect(theirs.getByRole("heading", { name: NAME })).toBeVisible();
  await theirs.getByRole("button", { name: "Sign out" }).click();
  await expect(theirs.getByRole("button", { name: "Log in" })).toBeVisible();
  await theirs.context().close();
});

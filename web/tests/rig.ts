// What the tests share: a page that is signed in and watched, looking for what breaks accessibility, acting as a mail user.
import { AxeBuilder } from "@axe-core/playwright";
import { type APIRequestContext, expect, type Page, test as base } from "@playwright/test";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

export function env(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set; web_rig sets it`);
  return value;
}

/** A page whose mistakes fail the test: errors, refused contents, anything loaded from elsewhere. */
export const test = base.extend<{ page: Page; mistakes: string[] }>({
  mistakes: async ({}, use) => {
    const mistakes: string[] = [];
    await use(mistakes);
    expect(mistakes).toEqual([]);
  },
  page: async ({ page, mistakes, baseURL }, use) => {
    page.on("pageerror", (error) => mistakes.push(`error: ${error.message}`));
    page.on("console", (message) => {
      // Chromium reports every answer above 399 here; what the page makes of those is what tests look at.
      if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) mistakes.push(`console: ${message.text()}`);
    });
    page.on("request", (request) => {
      const url = new URL(request.url());
      if (url.protocol.startsWith("http") && url.hostname !== new URL(baseURL ?? "").hostname) mistakes.push(`from elsewhere: ${request.url()}`);
    });
    await use(page);
  },
});

export { expect };

export async function signIn(page: Page, token = env("UNDERSTUDY_TOKEN")): Promise<void> {
  await page.addInitScript((secret) => sessionStorage.setItem("understudy.token", secret), token);
}

/** No violation of axe's rules, in light and in dark, once the page stands still: what it looks like on its way from one state to the next is no screen. */
export async function accessible(page: Page): Promise<void> {
  await expect(page.locator("h1")).toBeVisible();
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme });
    await expect(page.locator(`html[data-mantine-color-scheme="${colorScheme}"]`)).toBeAttached();
    // Colours are all that differs in the dark.
    // A page that is still coming has nothing to look at.
    await expect(page.getByRole("heading", { level: 1 }).first()).toBeVisible();
    await expect(async () => {
      const axe = new AxeBuilder({ page });
      const { violations } = await (colorScheme === "dark" ? axe.withRules("color-contrast") : axe).analyze();
      expect(violations.map(({ id, nodes }) => `${colorScheme} ${id}: ${nodes.map((node) => `${node.target}: ${node.failureSummary}`).join("; ")}`)).toEqual([]);
    }).toPass({ timeout: 20_000 });
  }
  await page.emulateMedia({ colorScheme: "light" });
}

/** Nothing is wider than the screen, once it is laid out for its new size: some parts are drawn again for it. */
export async function fits(page: Page): Promise<void> {
  const wider = () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  await expect.poll(wider).toBeLessThanOrEqual(0);
}

/** A picture of the whole screen, for the documentation: UNDERSTUDY_PICTURES=1 takes them over into docs/pictures. */
export async function picture(page: Page, name: string): Promise<void> {
  await page.evaluate(() => window.scrollTo(0, 0));
  const folder = process.env.UNDERSTUDY_PICTURES ? "../docs/pictures" : "../target/web/pictures";
  await page.screenshot({ path: `${folder}/${name}.png`, animations: "disabled", fullPage: true });
}

/** The API, for what a test needs and no screen is about. */
export async function ask(request: APIRequestContext, method: string, path: string, data?: unknown): Promise<any> {
  const answer = await request.fetch(`${env("UNDERSTUDY_URL")}${path}`, {
    method, data: data as Record<string, unknown>, headers: { Authorization: `Bearer ${env("UNDERSTUDY_TOKEN")}` },
  });
  expect(answer.ok(), `${method} ${path}: ${answer.status()}`).toBe(true);
  return answer.json();
}

/** One short IMAP conversation as a user of one of the two servers. */
export function imap(side: "PRIMARY" | "STANDBY", user: string, commands: string[]): Promise<string> {
  const [host = "", port = ""] = env(`${side}_ADDRESS`).split(":");
  const lines = [`LOGIN "${user}" "${env("USER_PASSWORD")}"`, ...commands, "LOGOUT"];
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), host);
    let text = "";
    let next = 0;
    socket.setEncoding("utf8");
    socket.on("error", reject);
    socket.on("data", (piece: string) => {
      text += piece;
      const last = text.trimEnd().split("\r\n").at(-1) ?? "";
      if (next > 0 && new RegExp(`^a${next} (NO|BAD)`).test(last)) {
        socket.destroy();
        reject(new Error(`${lines[next - 1]}: ${last}`));
        return;
      }
      const ready = next === 0 ? last.startsWith("* OK") : last.startsWith(`a${next} OK`);
      if (ready && next < lines.length) {
        next += 1;
        socket.write(`a${next} ${lines[next - 1]}\r\n`);
      }
    });
    socket.on("close", () => resolve(text));
  });
}

export function append(side: "PRIMARY" | "STANDBY", user: string, subject: string): Promise<string> {
  const message = `From: a@example.org\r\nSubject: ${subject}\r\nMessage-ID: <${Math.random()}@example.org>\r\n\r\nHello.\r\n`;
  // A non-synchronising literal (RFC 7888): no question in between.
  return imap(side, user, [`APPEND INBOX {${message.length}+}\r\n${message}`]);
}

/** A way to the web that can be cut and mended, as a network is. */
export class Way {
  private readonly sockets = new Set<Socket>();
  private server: Server | null = null;
  private port = 0;

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async mend(): Promise<void> {
    const { hostname, port } = new URL(env("UNDERSTUDY_URL"));
    const server = createServer((near) => {
      const far = connect(Number(port), hostname);
      for (const socket of [near, far]) {
        this.sockets.add(socket);
        socket.on("close", () => this.sockets.delete(socket));
        socket.on("error", () => undefined);
      }
      near.pipe(far).pipe(near);
    });
    await new Promise<void>((resolve) => server.listen(this.port, "127.0.0.1", resolve));
    this.port = (server.address() as AddressInfo).port;
    this.server = server;
  }

  cut(): void {
    this.server?.close();
    for (const socket of this.sockets) socket.destroy();
  }
}

// The browser's tests: Debian's Chromium, or the one that CHROMIUM names, against what `web_rig` started. `.ci/web` runs them.
import { defineConfig } from "@playwright/test";

export default defineConfig({
  testDir: "tests",
  testMatch: "*.flow.ts",
  outputDir: "../target/web/results",
  workers: 1,
  fullyParallel: false,
  // One story: what a test leaves behind, the next begins with.
  maxFailures: 1,
  // Machines that run tests are slow and busy.
  timeout: 420_000,
  expect: { timeout: 45_000 },
  reporter: [["list"]],
  use: {
    baseURL: process.env.UNDERSTUDY_URL,
    viewport: { width: 1280, height: 860 },
    reducedMotion: "reduce",
    actionTimeout: 45_000,
    screenshot: "only-on-failure",
    launchOptions: {
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      // As root, Chromium has no sandbox; it opens nothing here but our own page.
      args: process.getuid?.() === 0 ? ["--no-sandbox"] : [],
    },
  },
});

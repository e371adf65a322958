// How web/dist is built: one file of code a screen, hashed names, nothing inlined.
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// `npm run dev` beside a running Understudy: UNDERSTUDY_URL says where that is.
const backend = process.env.UNDERSTUDY_URL ?? "http://127.0.0.1:8080";

export default defineConfig({
  base: "/web/",
  plugins: [react()],
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 600,
  },
  server: { proxy: { "/api": backend, "/metrics": backend, "/healthz": backend } },
  test: { include: ["src/**/*.test.ts"] },
});

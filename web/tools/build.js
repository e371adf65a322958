// Builds web/dist (or OUT_DIR) and compresses what is in it, so that the binary can serve it as it is.
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { build } from "vite";

const dist = process.env.OUT_DIR ?? new URL("../dist", import.meta.url).pathname;
/** Below this, a compressed copy saves nothing. */
const WORTH_BYTES = 1000;
const COMPRESSIBLE = /\.(js|css|svg)$/;

await build({ logLevel: "warn", build: { outDir: dist, emptyOutDir: true } });
const files = readdirSync(dist, { recursive: true }).map((name) => join(dist, name));
for (const file of files.filter((name) => COMPRESSIBLE.test(name) && statSync(name).size >= WORTH_BYTES)) {
  const plain = readFileSync(file);
  writeFileSync(`${file}.br`, brotliCompressSync(plain, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: plain.length },
  }));
  writeFileSync(`${file}.gz`, gzipSync(plain, { level: 9 }));
}

// Fails unless every compressed file of web/dist holds what stands beside it. Other machines may compress to other bytes.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { brotliDecompressSync, gunzipSync } from "node:zlib";

const dist = new URL("../dist", import.meta.url).pathname;
const wrong = readdirSync(dist, { recursive: true })
  .map((name) => join(dist, name))
  .filter((name) => /\.(br|gz)$/.test(name))
  .filter((name) => {
    const plain = name.slice(0, -3);
    const unpacked = (name.endsWith(".br") ? brotliDecompressSync : gunzipSync)(readFileSync(name));
    return !existsSync(plain) || !unpacked.equals(readFileSync(plain));
  });
if (wrong.length > 0) {
  console.error(`Not what stands beside it: ${wrong.join(", ")}`);
  process.exit(1);
}

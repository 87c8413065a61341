/** Builds the daemon of the crash tests with Bun: build.ts FILE WORKER... Replaces the product's node:fs/promises and its `exchange` of two paths
 * by files.ts and exchange.ts in this folder, which have points. Nothing of this is in the product. */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const [outfile, ...workers] = process.argv.slice(2);
const { build } = await import("b" + "un");
const { success, logs } = await build({
  entrypoints: [join(here, "daemon.ts"), ...workers],
  target: "bun",
  format: "esm",
  minify: true,
  bytecode: true,
  compile: { outfile, autoloadDotenv: false, autoloadBunfig: false },
  plugins: [{
    name: "points",
    setup: (builder: { onLoad: (filter: { filter: RegExp }, load: (file: { path: string }) => object) => void }) =>
      builder.onLoad({ filter: /\/(drivers\/storage|server)\/.*\.ts$/ }, ({ path }) => ({
        loader: "ts",
        contents: readFileSync(path, "utf8")
          .replaceAll('from "node:fs/promises"', `from "${here}/files.ts"`)
          .replaceAll(/from "[^"]*host\/exchange\.ts"/g, `from "${here}/exchange.ts"`),
      })),
  }],
});
if (!success) {
  for (const log of logs) console.error(String(log));
  process.exit(1);
}

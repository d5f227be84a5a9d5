// Bundles the page into dist/: one script, one style sheet, and index.html as it is.

import { build } from "esbuild";
import { copyFileSync } from "node:fs";

await build({
  entryPoints: { page: "src/main.tsx" },
  outdir: "dist",
  bundle: true,
  minify: true,
  format: "esm",
  // Browsers of the last three years; nothing is translated for older ones.
  target: ["chrome109", "firefox115", "safari16.4"],
  legalComments: "none",
  // The licences of what is bundled ask to be named with it.
  banner: { js: "/* ttmem: Apache-2.0. Contains preact and uPlot, both MIT: see ui/package.json. */" },
});
copyFileSync("index.html", "dist/index.html");

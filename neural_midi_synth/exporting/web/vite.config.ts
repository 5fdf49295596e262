// The page, built into built/: everything relative, so that it works from any folder of any server.
import { copyFileSync, mkdirSync, readdirSync } from "node:fs";
import { defineConfig } from "vite";

// The runtime comes in files of its own. A browser takes one: the second is for those without relaxed SIMD.
const RUNTIMES = ["litert_wasm_internal", "litert_wasm_compat_internal"];

// What is played where no file is opened: the published examples and the riff.
const PIECES = "../../../data_prep/demo_guitar/examples";

export default defineConfig({
  base: "./",
  build: {
    outDir: "built",
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0, // Data URLs would need a wider content security policy.
    sourcemap: false,
  },
  // A classic worker, since the runtime is loaded with importScripts.
  worker: { format: "iife" },
  plugins: [
    {
      name: "runtime-and-pieces",
      apply: "build",
      closeBundle() {
        mkdirSync("built/litert", { recursive: true });
        for (const name of RUNTIMES) {
          for (const end of [".js", ".wasm"]) {
            copyFileSync(`node_modules/@litertjs/core/wasm/${name}${end}`, `built/litert/${name}${end}`);
          }
        }
        mkdirSync("built/pieces", { recursive: true });
        for (const name of readdirSync(PIECES).filter((each) => each.endsWith(".mid"))) {
          copyFileSync(`${PIECES}/${name}`, `built/pieces/${name}`);
        }
      },
    },
  ],
});

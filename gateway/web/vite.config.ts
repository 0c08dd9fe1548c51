import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import vue from "@vitejs/plugin-vue";
import Components from "unplugin-vue-components/vite";
import { ElementPlusResolver } from "unplugin-vue-components/resolvers";
import { defineConfig, loadEnv, type Plugin } from "vite";

/** Compressed JavaScript, in bytes, that a page may need when it is the first one that is opened. */
const BUDGET = 250 * 1024;
/** Files that are sent as they are: one packet, in bytes, takes them. */
const SMALL = 1_024;

export default defineConfig(({ mode }) => {
  // `npm run dev` shows the console against a platform that runs on this address.
  const platform = loadEnv(mode, ".", "ESPALIER_").ESPALIER_PUBLIC_URL ?? "http://127.0.0.1:8080";
  return {
    plugins: [
      vue(),
      // Element Plus alone comes by name; our own components are imported, so that a reader sees where they stand.
      Components({ dts: false, globs: [], resolvers: [ElementPlusResolver({ importStyle: "css" })] }),
      budget(),
      compressed(),
    ],
    // The gateway's content security policy allows no inline code, so nothing may be inlined.
    build: { assetsInlineLimit: 0, modulePreload: { polyfill: false } },
    server: { proxy: { "/api": platform, "/openapi.json": platform } },
  };
});

/** Fails the build when a page needs more than BUDGET to show itself. */
function budget(): Plugin {
  return {
    name: "espalier-budget",
    generateBundle(_options, bundle) {
      const chunks = Object.values(bundle).filter((file) => file.type === "chunk");
      const sizes = new Map(chunks.map((chunk) => [chunk.fileName, gzipSync(chunk.code).length]));
      const imports = new Map(chunks.map((chunk) => [chunk.fileName, chunk.imports]));

      /** The files that are loaded when these are. */
      function closure(names: string[], found = new Set<string>()): Set<string> {
        for (const name of names.filter((each) => sizes.has(each) && !found.has(each))) {
          found.add(name);
          closure(imports.get(name) ?? [], found);
        }
        return found;
      }

      const entry = chunks.find((chunk) => chunk.isEntry)?.fileName ?? "";
      const pages = chunks.filter((chunk) => chunk.isDynamicEntry).map((chunk) => {
        const files = closure([entry, chunk.fileName]);
        return { name: chunk.name, bytes: [...files].reduce((sum, name) => sum + (sizes.get(name) ?? 0), 0) };
      });
      const largest = pages.sort((a, b) => b.bytes - a.bytes)[0];
      if (!largest) return;
      const told = `${largest.name} needs ${Math.round(largest.bytes / 1024)} KB of compressed JavaScript`;
      if (largest.bytes > BUDGET) this.error(`${told}, more than ${BUDGET / 1024} KB: load what is not seen at once lazily.`);
      this.info(`the largest page, ${told}`);
    },
  };
}

/** Leaves a compressed form beside each file that gains by it; the gateway sends it to whoever takes it. */
function compressed(): Plugin {
  let directory = "";
  return {
    name: "espalier-compressed",
    apply: "build",
    configResolved: ({ root, build }) => {
      directory = join(root, build.outDir);
    },
    async closeBundle() {
      const names = await readdir(directory, { recursive: true });
      for (const name of names.filter((each) => /\.(js|css|html|svg)$/.test(each))) {
        const bytes = await readFile(join(directory, name));
        if (bytes.length < SMALL) continue;
        const hint = { [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length };
        await writeFile(join(directory, `${name}.br`), brotliCompressSync(bytes, { params: hint }));
        await writeFile(join(directory, `${name}.gz`), gzipSync(bytes, { level: 9 }));
      }
    },
  };
}

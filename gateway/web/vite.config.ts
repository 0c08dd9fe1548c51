import vue from "@vitejs/plugin-vue";
import { defineConfig, loadEnv } from "vite";

export default defineConfig(({ mode }) => {
  // `npm run dev` shows the console against a platform that runs on this address.
  const platform = loadEnv(mode, ".", "ESPALIER_").ESPALIER_PUBLIC_URL ?? "http://127.0.0.1:8080";
  return {
    plugins: [vue()],
    // The gateway's content security policy allows no inline code, so nothing may be inlined.
    build: { assetsInlineLimit: 0, modulePreload: { polyfill: false } },
    server: { proxy: { "/api": platform, "/openapi.json": platform } },
  };
});

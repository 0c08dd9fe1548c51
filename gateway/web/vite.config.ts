import vue from "@vitejs/plugin-vue";
import { defineConfig } from "vite";

// `npm run dev` shows the console against a platform that runs on this address.
const platform = process.env.ESPALIER_PUBLIC_URL ?? "http://127.0.0.1:8080";

export default defineConfig({
  plugins: [vue()],
  // The gateway's content security policy allows no inline code, so nothing may be inlined.
  build: { assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  server: { proxy: { "/api": platform, "/openapi.json": platform } },
});

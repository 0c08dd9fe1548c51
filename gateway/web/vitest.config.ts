import { defineConfig } from "vitest/config";

// What is pure, or nearly so; the pages themselves are tested in a browser, by tests/console.
export default defineConfig({
  test: { include: ["tests/**/*.test.ts"], environment: "node", testTimeout: 60_000, reporters: "dot" },
});

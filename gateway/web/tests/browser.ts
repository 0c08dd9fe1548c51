// What modules of the console expect of a browser, as far as tests of their logic need it.
import { vi } from "vitest";

/** Cookies that scripts can read, as `document.cookie` tells them. */
export const cookies = { text: "espalier_csrf=proof" };
const kept = new Map<string, string>();

vi.stubGlobal("location", { origin: "http://console.test", reload: vi.fn() });
vi.stubGlobal("document", {
  addEventListener: vi.fn(),
  createElement: vi.fn(),
  visibilityState: "visible",
  get cookie() {
    return cookies.text;
  },
});
vi.stubGlobal("localStorage", {
  getItem: (name: string) => kept.get(name) ?? null,
  setItem: (name: string, value: string) => kept.set(name, value),
  clear: () => kept.clear(),
});

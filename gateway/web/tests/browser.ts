// What modules of the console expect of a browser, as far as tests of their logic need it.
import { vi } from "vitest";

/** Cookies that scripts can read, as `document.cookie` tells them. */
export const cookies = { text: "espalier_csrf=proof" };
const kept = new Map<string, string>();

/** What listens on the window, by the name of the event. */
export const listeners = new Map<string, (() => void)[]>();

vi.stubGlobal("window", {
  addEventListener: (name: string, listen: () => void) => listeners.set(name, [...(listeners.get(name) ?? []), listen]),
  removeEventListener: vi.fn(),
  setInterval: (...given: Parameters<typeof setInterval>) => setInterval(...given),
  clearInterval: (timer: number) => clearInterval(timer),
});
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

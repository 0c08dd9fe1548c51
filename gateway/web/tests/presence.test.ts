import { listeners } from "./browser";
import { focusManager } from "@tanstack/vue-query";
import { afterEach, expect, test, vi } from "vitest";
import { watchPresence } from "../src/composables/usePresence";

const HOUR = 3_600_000;

afterEach(() => vi.useRealTimers());

test("a page that nobody has touched for half a day asks nothing more, until somebody does", () => {
  vi.useFakeTimers();
  watchPresence();
  vi.advanceTimersByTime(11 * HOUR);
  expect(focusManager.isFocused()).toBe(true);
  vi.advanceTimersByTime(2 * HOUR);
  expect(focusManager.isFocused()).toBe(false);
  for (const act of listeners.get("keydown") ?? []) act();
  expect(focusManager.isFocused()).toBe(true);
});

import "./browser";
import { expect, test } from "vitest";
import { isNearItsEnd } from "../src/composables/useSessions";

const HOUR = 3_600_000;

function session(hours: number) {
  const [begin, end] = [0, hours * HOUR].map((time) => new Date(time).toISOString());
  return { id: "", device: "", address: "", current: true, create_time: begin, expire_time: end };
}

test("a session of weeks is near its end on the last day, one of hours in its last tenth", () => {
  expect([695, 697].map((now) => isNearItsEnd(session(720), now * HOUR))).toEqual([false, true]);
  expect(isNearItsEnd(session(10), 8.9 * HOUR)).toBe(false);
  expect(isNearItsEnd(session(10), 9.1 * HOUR)).toBe(true);
});

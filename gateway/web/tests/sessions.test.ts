import "./browser";
import { expect, test } from "vitest";
import { endOf } from "../src/composables/useSessions";

const HOUR = 3_600_000;
const at = (hours: number): string => new Date(hours * HOUR).toISOString();

/** A session of so many hours in all, which ends after `idle` hours without use. */
function session(hours: number, idle = hours) {
  return { create_time: at(0), last_used_time: at(0), expire_time: at(hours), idle_expire_time: at(idle) };
}

const end = (given: ReturnType<typeof session>, now: number, renewed = 0) =>
  endOf(given, { now: now * HOUR, renewed: renewed * HOUR });

test("a session of weeks is near its end on the last day, one of hours in its last tenth", () => {
  expect([695, 697].map((now) => end(session(720), now))).toEqual([null, { time: at(720), isIdle: false }]);
  expect(end(session(10), 8.9)).toBeNull();
  expect(end(session(10), 9.1)).toEqual({ time: at(10), isIdle: false });
});

test("a session that nobody uses is near its end before, until any tab uses it", () => {
  expect(end(session(2_160, 336), 311)).toBeNull();
  expect(end(session(2_160, 336), 313)).toEqual({ time: at(336), isIdle: true });
  expect(end(session(2_160, 336), 313, 312)).toBeNull();
  expect(end(session(2_160, 336), 640, 312)).toEqual({ time: at(648), isIdle: true });
  // A renewal that is still to come is that of a clock that has been set back since.
  expect(end(session(2_160, 336), 330, 900)).toEqual({ time: at(336), isIdle: true });
});

test("what is over in any case is not said to be over for lack of use", () => {
  expect(end(session(340, 336), 330)).toEqual({ time: at(340), isIdle: false });
});

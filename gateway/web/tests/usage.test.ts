import "./browser";
import { expect, test } from "vitest";
import { periodOf, seriesOf, stepsOf, type UsageRow } from "../src/composables/admin/useUsage";

const DAY = 86_400_000;

test("the last day that is chosen belongs to the period, and steps without use are there too", () => {
  const period = periodOf(30, "2026-11-20", "2026-11-22");
  const steps = stepsOf(period, "day");
  expect(steps).toEqual([0, 1, 2].map((day) => Date.parse("2026-11-20") + day * DAY));
  expect(stepsOf(period, "hour")).toHaveLength(72);
});

test("the smallest series become others, and nothing is lost", () => {
  const steps = stepsOf(periodOf(30, "2026-11-20", "2026-11-21"), "day");
  const rows = ["a", "b", "c"].map((model, index) => ({
    ...{ model, kind: "USAGE_KIND_TOKENS_IN", amount: 10 * (index + 1), time: "2026-11-21T00:00:00Z" },
  })) as UsageRow[];
  const series = seriesOf(rows, { steps, measure: "tokens", dimension: "model", most: 2 });
  expect(series).toEqual([
    { name: "c", amounts: [0, 30], sum: 30 },
    { name: "2 others", amounts: [0, 30], sum: 30 },
  ]);
});

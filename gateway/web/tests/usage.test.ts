import "./browser";
import { expect, test } from "vitest";
import {
  estimatedOf,
  figuresOf,
  periodOf,
  seriesOf,
  type Statistics,
  stepsOf,
  type UsageRow,
} from "../src/composables/admin/useUsage";

const DAY = 86_400_000;

test("the last day that is chosen belongs to the period, and steps without use are there too", () => {
  const period = periodOf(30, "2026-11-20", "2026-11-22");
  const steps = stepsOf(period, "day");
  expect(steps).toEqual([0, 1, 2].map((day) => Date.parse("2026-11-20") + day * DAY));
  expect(stepsOf(period, "hour")).toHaveLength(72);
});

const steps = stepsOf(periodOf(30, "2026-11-20", "2026-11-21"), "day");

function rowsOf(kind: string, amounts: Record<string, number>, more = {}): UsageRow[] {
  return Object.entries(amounts).map(([model, amount]) => {
    return { model, kind, amount, time: "2026-11-21T00:00:00Z", ...more } as UsageRow;
  });
}

test("the smallest series become others, and nothing is lost", () => {
  const rows = rowsOf("USAGE_KIND_TOKENS_IN", { a: 10, "": 20, c: 30 });
  const series = seriesOf(rows, { steps, measure: "tokens", dimension: "model", most: 2 });
  expect(series).toEqual([
    { name: "c", title: "c", amounts: [0, 30], total: 30 },
    { name: "", title: "2 others", amounts: [0, 30], total: 30 },
  ]);
});

test("what is stored is no sum over time, and what has no model is said to have none", () => {
  const rows = rowsOf("USAGE_KIND_STORED_BYTES", { a: 5, "": 7 });
  const before = rowsOf("USAGE_KIND_STORED_BYTES", { a: 9 }, { time: "2026-11-20T00:00:00Z" });
  const series = seriesOf([...before, ...rows], { steps, measure: "stored", dimension: "model", most: 8 });
  expect(series).toEqual([
    { name: "", title: "no model", amounts: [0, 7], total: 7 },
    { name: "a", title: "a", amounts: [9, 5], total: 5 },
  ]);
});

test("tokens that were trained on are told apart from those of answers", () => {
  const [asked, trained] = ["chat", "training"].map((source) => rowsOf("USAGE_KIND_TOKENS_IN", { a: 10 }, { source }));
  const rows = [...(asked ?? []), ...(trained ?? [])];
  const totals = (["tokens", "trained"] as const).map(
    (measure) => seriesOf(rows, { steps, measure, dimension: "model", most: 8 })[0]?.total,
  );
  expect(totals).toEqual([20, 10]);
});

test("what is estimated is told in the unit of what is shown, and of that alone", () => {
  const seconds = rowsOf("USAGE_KIND_GPU_SECONDS", { a: 9_000 }, { estimated: 1_800 });
  const tokens = rowsOf("USAGE_KIND_TOKENS_IN", { a: 10 }, { estimated: 4, source: "chat" });
  expect(estimatedOf([...seconds, ...tokens], "gpu_hours")).toBe(0.5);
  expect(estimatedOf([...seconds, ...tokens], "tokens")).toBe(4);
  expect(estimatedOf([...seconds, ...tokens], "trained")).toBe(0);
});

test("a figure that nobody measured is saved as none, and not as zero", () => {
  const lines = figuresOf({
    requests: { value: 0, before: 2 },
    gpu_hours: {},
    top_users: [{ name: "id-1", label: "ada", amount: 7 }],
    top_models: [{ name: "m", label: "m", amount: 3 }],
  } as unknown as Statistics);
  expect(lines).toEqual([
    { figure: "requests", name: "", id: "", value: 0, before: 2 },
    { figure: "gpu_hours", name: "", id: "", value: undefined, before: undefined },
    { figure: "top_users", name: "ada", id: "id-1", value: 7, before: undefined },
    { figure: "top_models", name: "m", id: "", value: 3, before: undefined },
  ]);
});

// Use in a period: figures against the period before, and sums over time.
import { keepPreviousData, useQuery } from "@tanstack/vue-query";
import { computed, type ComputedRef } from "vue";
import { api } from "../../api/client";
import { answerOf } from "../../api/queries";
import type { components } from "../../api/schema";

export type Statistics = components["schemas"]["auth.v1.Statistics"];
export type Figure = components["schemas"]["auth.v1.Figure"];
export type UsageRow = components["schemas"]["auth.v1.UsageRow"];
export type Dimension = "model" | "user" | "group" | "source";
export type Grain = "hour" | "day";

const DAY = 86_400_000;
/** Kinds that are told apart in the chart, each out of the ledger's kinds. */
export const MEASURES: Record<string, { title: string; kinds: UsageRow["kind"][]; factor: number; unit: string }> = {
  tokens: { title: "Tokens", kinds: ["USAGE_KIND_TOKENS_IN", "USAGE_KIND_TOKENS_OUT"], factor: 1, unit: "tokens" },
  tokens_in: { title: "Tokens in", kinds: ["USAGE_KIND_TOKENS_IN"], factor: 1, unit: "tokens" },
  tokens_out: { title: "Tokens out", kinds: ["USAGE_KIND_TOKENS_OUT"], factor: 1, unit: "tokens" },
  requests: { title: "Requests", kinds: ["USAGE_KIND_REQUESTS"], factor: 1, unit: "requests" },
  gpu_hours: { title: "GPU-hours", kinds: ["USAGE_KIND_GPU_SECONDS"], factor: 3600, unit: "GPU-hours" },
  cpu_hours: { title: "CPU-hours", kinds: ["USAGE_KIND_CPU_SECONDS"], factor: 3600, unit: "CPU-hours" },
};
const FIELDS: Record<Dimension, "model" | "user_id" | "group_id" | "source"> = {
  model: "model",
  user: "user_id",
  group: "group_id",
  source: "source",
};

export interface Period {
  start: Date;
  end: Date;
}

/** One line of the chart: a model, a user … with its amount in each step. */
export interface Series {
  name: string;
  amounts: number[];
  sum: number;
}

/** The days until now that a choice means, or the ones between two dates. */
export function periodOf(days: number, from: string, to: string, now = new Date()): Period {
  const end = to ? new Date(new Date(to).getTime() + DAY) : now;
  const start = from ? new Date(from) : new Date(end.getTime() - days * DAY);
  return { start, end };
}

export function useStatistics(period: ComputedRef<Period>) {
  const query = useQuery({
    queryKey: computed(() => ["admin-statistics", period.value]),
    queryFn: () => answerOf(api.GET("/api/v1/statistics", { params: { query: times(period.value) } })),
    placeholderData: keepPreviousData,
  });
  return {
    statistics: query.data,
    error: query.error,
    isStale: query.isPlaceholderData,
    reload: () => query.refetch(),
  };
}

/** What is asked of the ledger. */
export interface UsageQuestion {
  period: Period;
  grain: Grain;
  dimension: Dimension;
  model: string;
}

/** `of` is what the rows answer, which is the question before as long as the answer to a new one is on its way. */
export function useUsage(wanted: ComputedRef<UsageQuestion>) {
  const query = useQuery({
    queryKey: computed(() => ["admin-usage", wanted.value]),
    queryFn: async () => {
      const of = wanted.value;
      const { period, grain, dimension, model } = of;
      const steps = grain === "hour" ? ("USAGE_GRAIN_HOUR" as const) : ("USAGE_GRAIN_DAY" as const);
      const narrowed = model ? { model } : {};
      const query = { ...times(period), ...narrowed, grain: steps, group_by: [dimension] };
      return { ...(await answerOf(api.GET("/api/v1/usage", { params: { query } }))), of };
    },
    placeholderData: keepPreviousData,
  });
  const rows = computed(() => query.data.value?.rows ?? []);
  const isTruncated = computed(() => query.data.value?.truncated ?? false);
  return {
    rows,
    of: computed(() => query.data.value?.of ?? wanted.value),
    isTruncated,
    error: query.error,
    isLoading: query.isLoading,
    isStale: query.isPlaceholderData,
    reload: () => query.refetch(),
  };
}

function times({ start, end }: Period): { start_time: string; end_time: string } {
  return { start_time: start.toISOString(), end_time: end.toISOString() };
}

/** The beginnings of all steps of a period, those in which nothing was used as well. Days are those of UTC. */
export function stepsOf({ start, end }: Period, grain: Grain): number[] {
  const width = grain === "hour" ? DAY / 24 : DAY;
  const first = Math.floor(start.getTime() / width) * width;
  const count = Math.max(1, Math.ceil((end.getTime() - first) / width));
  return Array.from({ length: count }, (_, index) => first + index * width);
}

/** The greatest series by their sums, and what is left over as "others". */
export function seriesOf(
  rows: UsageRow[],
  { steps, measure, dimension, most }: { steps: number[]; measure: string; dimension: Dimension; most: number },
): Series[] {
  const { kinds, factor } = MEASURES[measure] ?? { kinds: [] as UsageRow["kind"][], factor: 1 };
  const position = new Map(steps.map((step, index) => [step, index]));
  const found = new Map<string, Series>();
  for (const row of rows) {
    const index = position.get(new Date(row.time ?? 0).getTime());
    if (index === undefined || !kinds.includes(row.kind)) continue;
    const name = row[FIELDS[dimension]];
    const series = found.get(name) ?? { name, amounts: steps.map(() => 0), sum: 0 };
    const amount = Number(row.amount) / factor;
    series.amounts[index] = (series.amounts[index] ?? 0) + amount;
    series.sum += amount;
    found.set(name, series);
  }
  const sorted = [...found.values()].sort((a, b) => b.sum - a.sum);
  if (sorted.length <= most) return sorted;
  const rest = sorted.slice(most - 1);
  const others = steps.map((_, index) => rest.reduce((sum, series) => sum + (series.amounts[index] ?? 0), 0));
  const sum = rest.reduce((total, series) => total + series.sum, 0);
  return [...sorted.slice(0, most - 1), { name: `${rest.length} others`, amounts: others, sum }];
}

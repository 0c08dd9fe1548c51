// Use in a period: figures against the period before, and sums over time.
import { keepPreviousData, useQuery } from "@tanstack/vue-query";
import { computed, type ComputedRef } from "vue";
import { api } from "../../api/client";
import { answerOf } from "../../api/queries";
import type { components } from "../../api/schema";
import { useSession } from "../useSession";
import { given } from "./useKeysetList";

export type Statistics = components["schemas"]["auth.v1.Statistics"];
export type Figure = components["schemas"]["auth.v1.Figure"];
export type UsageRow = components["schemas"]["auth.v1.UsageRow"];
export type Dimension = "model" | "user" | "group" | "source";
export type Grain = "hour" | "day";

const DAY = 86_400_000;
/** One thing that the chart shows, out of the ledger's kinds. */
export interface Measure {
  title: string;
  kinds: UsageRow["kind"][];
  factor: number;
  unit: string;
  /** Of what came from here alone. */
  source?: string;
  /** What there is at the end of a step, and no sum over time. */
  isLevel?: boolean;
}

const TOKENS: UsageRow["kind"][] = ["USAGE_KIND_TOKENS_IN", "USAGE_KIND_TOKENS_OUT"];
export const MEASURES = {
  tokens: { title: "Tokens", kinds: TOKENS, factor: 1, unit: "tokens" },
  tokens_in: { title: "Tokens in", kinds: ["USAGE_KIND_TOKENS_IN"], factor: 1, unit: "tokens" },
  tokens_out: { title: "Tokens out", kinds: ["USAGE_KIND_TOKENS_OUT"], factor: 1, unit: "tokens" },
  trained: { title: "Tokens trained on", kinds: TOKENS, factor: 1, unit: "tokens", source: "training" },
  requests: { title: "Requests", kinds: ["USAGE_KIND_REQUESTS"], factor: 1, unit: "requests" },
  gpu_hours: { title: "GPU-hours", kinds: ["USAGE_KIND_GPU_SECONDS"], factor: 3600, unit: "GPU-hours" },
  cpu_hours: { title: "CPU-hours", kinds: ["USAGE_KIND_CPU_SECONDS"], factor: 3600, unit: "CPU-hours" },
  stored: { title: "Stored data", kinds: ["USAGE_KIND_STORED_BYTES"], factor: 1, unit: "bytes", isLevel: true },
} satisfies Record<string, Measure>;
export type MeasureName = keyof typeof MEASURES;
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

const TITLES: Record<Dimension, "model" | "user_name" | "group_name" | "source"> = {
  model: "model",
  user: "user_name",
  group: "group_name",
  source: "source",
};
/** What has none of a dimension. */
const NONE: Record<Dimension, string> = {
  model: "no model",
  user: "no user",
  group: "no group",
  source: "unknown",
};

/** One part of the bars: a model, a user … with its amount in each step. */
export interface Series {
  /** A model, or the id of a user …; empty for what has none, and for the rest. */
  name: string;
  title: string;
  amounts: number[];
  /** In the whole period; of a level, what there is at its end. */
  total: number;
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

/** A line of the figures as a file has it; a value that was not measured is none, and no zero. */
export interface FigureLine {
  figure: string;
  name: string;
  id: string;
  value: number | undefined;
  before: number | undefined;
}

export function figuresOf({ top_users, top_models, ...figures }: Statistics): FigureLine[] {
  const lines = Object.entries(figures).map(([figure, { value, before }]) => ({
    figure,
    name: "",
    id: "",
    value,
    before,
  }));
  const ranked = (figure: string, all: Statistics["top_users"]): FigureLine[] =>
    all.map(({ name, label, amount }) => ({
      figure,
      name: label || name,
      id: name === label ? "" : name,
      value: amount,
      before: undefined,
    }));
  return [...lines, ...ranked("top_users", top_users), ...ranked("top_models", top_models)];
}

/** What is asked of the ledger. */
export interface UsageQuestion {
  period: Period;
  grain: Grain;
  dimension: Dimension;
  measure: MeasureName;
  /** Only of these; empty for all. */
  model: string;
  user_id: string;
  group_id: string;
}

/** `of` is what the rows answer, which is the question before as long as the answer to a new one is on its way. */
export function useUsage(wanted: ComputedRef<UsageQuestion>) {
  const query = useQuery({
    queryKey: computed(() => ["admin-usage", wanted.value]),
    queryFn: async () => {
      const of = wanted.value;
      const { period, grain, dimension, measure, ...only } = of;
      const asked: Measure = MEASURES[measure];
      const [kind, ...others] = asked.kinds;
      const query = {
        ...times(period),
        ...given(only),
        ...(kind && others.length === 0 ? { kind } : {}),
        grain: grain === "hour" ? ("USAGE_GRAIN_HOUR" as const) : ("USAGE_GRAIN_DAY" as const),
        group_by: asked.source && dimension !== "source" ? [dimension, "source"] : [dimension],
      };
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

/** The greatest series, and what is left over as "others". */
export function seriesOf(
  rows: UsageRow[],
  { steps, measure, dimension, most }: { steps: number[]; measure: MeasureName; dimension: Dimension; most: number },
): Series[] {
  const { kinds, factor, source, isLevel }: Measure = MEASURES[measure];
  const position = new Map(steps.map((step, index) => [step, index]));
  const found = new Map<string, Series>();
  for (const row of rows) {
    const index = position.get(new Date(row.time ?? 0).getTime());
    if (index === undefined || !kinds.includes(row.kind) || (source && row.source !== source)) continue;
    const name = row[FIELDS[dimension]];
    const title = row[TITLES[dimension]] || name.slice(0, 8) || NONE[dimension];
    const series = found.get(name) ?? { name, title, amounts: steps.map(() => 0), total: 0 };
    series.amounts[index] = (series.amounts[index] ?? 0) + Number(row.amount) / factor;
    found.set(name, series);
  }
  for (const series of found.values()) series.total = totalOf(series.amounts, isLevel);
  const sorted = [...found.values()].sort((a, b) => b.total - a.total);
  if (sorted.length <= most) return sorted;
  const rest = sorted.slice(most - 1);
  const amounts = steps.map((_, index) => rest.reduce((sum, series) => sum + (series.amounts[index] ?? 0), 0));
  const others = { name: "", title: `${rest.length} others`, amounts, total: totalOf(amounts, isLevel) };
  return [...sorted.slice(0, most - 1), others];
}

/** How much of what is shown the ledger could only estimate. */
export function estimatedOf(rows: UsageRow[], measure: MeasureName): number {
  const { kinds, factor, source }: Measure = MEASURES[measure];
  const shown = rows.filter((row) => kinds.includes(row.kind) && (!source || row.source === source));
  return shown.reduce((sum, row) => sum + Number(row.estimated), 0) / factor;
}

/** Of amounts by step: their sum, or the newest. */
export function totalOf(amounts: number[], isLevel = false): number {
  return isLevel ? (amounts.at(-1) ?? 0) : amounts.reduce((sum, amount) => sum + amount, 0);
}

/** What was used in a period in all, by kind. */
export function useTotals(period: ComputedRef<Period>) {
  const { may } = useSession();
  const query = useQuery({
    queryKey: computed(() => ["admin-usage", "totals", period.value]),
    queryFn: () => answerOf(api.GET("/api/v1/usage", { params: { query: times(period.value) } })),
    enabled: computed(() => may("auth.usage.list")),
    placeholderData: keepPreviousData,
  });
  return computed(() => new Map(query.data.value?.rows.map((row) => [row.kind, Number(row.amount)])));
}

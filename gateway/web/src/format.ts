// How times and amounts are written, everywhere the same.
import type { components } from "./api/schema";

export type UsageKind = components["schemas"]["auth.v1.UsageKind"];
type QuotaPeriod = components["schemas"]["auth.v1.QuotaPeriod"];

const LANGUAGE = "en";
const moment = new Intl.DateTimeFormat(LANGUAGE, { dateStyle: "medium", timeStyle: "short" });
const day = new Intl.DateTimeFormat(LANGUAGE, { dateStyle: "medium" });
const distance = new Intl.RelativeTimeFormat(LANGUAGE, { numeric: "auto" });
const number = new Intl.NumberFormat(LANGUAGE, { maximumFractionDigits: 1 });

/** "Nov 24, 2026, 9:15 AM" in the zone of the reader; `otherwise` when there is no time. */
export function formatTime(time: string | undefined, otherwise = "–"): string {
  return time ? moment.format(new Date(time)) : otherwise;
}

/** "Nov 24, 2026". */
export function formatDay(time: string | undefined, otherwise = "–"): string {
  return time ? day.format(new Date(time)) : otherwise;
}

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["minute", 60],
  ["hour", 3_600],
  ["day", 86_400],
  ["month", 30 * 86_400],
  ["year", 365 * 86_400],
];

/** "3 hours ago", "in 2 days", "now"; `now` in milliseconds since 1970. */
export function formatDistance(time: string | undefined, otherwise = "–", now = Date.now()): string {
  if (!time) return otherwise;
  const seconds = (new Date(time).getTime() - now) / 1_000;
  const step = STEPS.findLast(([, size]) => Math.abs(seconds) >= size);
  return step ? distance.format(Math.round(seconds / step[1]), step[0]) : "now";
}

export const kindNames: Record<UsageKind, string> = {
  USAGE_KIND_UNSPECIFIED: "Unknown",
  USAGE_KIND_TOKENS_IN: "Tokens in",
  USAGE_KIND_TOKENS_OUT: "Tokens out",
  USAGE_KIND_GPU_SECONDS: "GPU time",
  USAGE_KIND_CPU_SECONDS: "CPU time",
  USAGE_KIND_STORED_BYTES: "Storage",
  USAGE_KIND_REQUESTS: "Requests",
  USAGE_KIND_CONCURRENT_RUNS: "Runs at the same time",
};

export const periodNames: Record<QuotaPeriod, string> = {
  QUOTA_PERIOD_UNSPECIFIED: "at any time",
  QUOTA_PERIOD_DAY: "a day",
  QUOTA_PERIOD_MONTH: "a month",
};

const BYTES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** "1.5 GiB". */
export function formatBytes(bytes: number): string {
  const power = bytes < 1 ? 0 : Math.min(Math.floor(Math.log(bytes) / Math.log(1024)), BYTES.length - 1);
  return `${number.format(bytes / 1024 ** power)} ${BYTES[power]}`;
}

/** An amount in the unit of its kind: hours, bytes with their prefix, or a plain number. */
export function formatAmount(kind: UsageKind, amount: number): string {
  if (kind === "USAGE_KIND_STORED_BYTES") return formatBytes(amount);
  if (kind !== "USAGE_KIND_GPU_SECONDS" && kind !== "USAGE_KIND_CPU_SECONDS") return number.format(amount);
  if (amount < 60) return `${number.format(amount)} s`;
  return amount < 3_600 ? `${number.format(amount / 60)} min` : `${number.format(amount / 3_600)} h`;
}

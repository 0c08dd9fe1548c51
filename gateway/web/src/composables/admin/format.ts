// Numbers and times as people read them, in the language of the browser.
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const compact = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const plain = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["year", 31_536_000],
  ["month", 2_592_000],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];

export function formatTime(time: string | undefined): string {
  return time ? moment.format(new Date(time)) : "";
}

export function formatExactTime(time: string | undefined): string {
  return time ? exact.format(new Date(time)) : "";
}

export function formatDay(time: Date): string {
  return day.format(time);
}

/** "5 minutes ago", "in 3 days". */
export function formatAge(time: string, now = Date.now()): string {
  const seconds = (new Date(time).getTime() - now) / 1000;
  const [unit, length] = STEPS.find(([, step]) => Math.abs(seconds) >= step) ?? ["second", 1];
  return Math.abs(seconds) < 60 ? "just now" : relative.format(Math.round(seconds / length), unit);
}

/** 1,234 in full, 1.2M when greater. */
export function formatCount(value: number): string {
  return Math.abs(value) < 100_000 ? plain.format(value) : compact.format(value);
}

export function formatBytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = value > 0 ? Math.min(Math.floor(Math.log(value) / Math.log(1024)), units.length - 1) : 0;
  return `${plain.format(value / 1024 ** power)} ${units[power]}`;
}

export function formatSeconds(value: number): string {
  if (value < 60) return `${plain.format(value)} s`;
  return value < 3600 ? `${plain.format(value / 60)} min` : `${plain.format(value / 3600)} h`;
}

/** What an `<input type="datetime-local">` holds, as the API wants it; empty stays empty. */
export function toTimestamp(local: string): string {
  const time = new Date(local);
  return local && !Number.isNaN(time.getTime()) ? time.toISOString() : "";
}

/** A time of the API, as an `<input type="datetime-local">` holds it. */
export function toLocalInput(time: string | Date): string {
  const date = new Date(time);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

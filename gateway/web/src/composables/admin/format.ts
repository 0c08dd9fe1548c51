// Numbers and times as administration shows them; what all pages share stands in src/format.ts.
const LANGUAGE = "en";
const exact = new Intl.DateTimeFormat(LANGUAGE, { dateStyle: "medium", timeStyle: "medium" });
const axis = new Intl.DateTimeFormat(LANGUAGE, { month: "short", day: "numeric", timeZone: "UTC" });
const hour = new Intl.DateTimeFormat(LANGUAGE, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
const compact = new Intl.NumberFormat(LANGUAGE, { notation: "compact", maximumFractionDigits: 1 });
const plain = new Intl.NumberFormat(LANGUAGE, { maximumFractionDigits: 1 });

/** With seconds. */
export function formatExactTime(time: string | undefined): string {
  return time ? exact.format(new Date(time)) : "";
}

/** The beginning of a step of the ledger: its days are those of UTC, its hours those of the reader. */
export function formatStep(time: number, grain: "hour" | "day"): string {
  return (grain === "day" ? axis : hour).format(new Date(time));
}

/** 1,234 in full, 12.3K when greater. */
export function formatCount(value: number): string {
  return Math.abs(value) < 10_000 ? plain.format(value) : compact.format(value);
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
export function toLocalInput(time: string): string {
  const date = new Date(time);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

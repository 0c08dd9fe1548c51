// What the things of the audit log are called: it is chained over ids, and people know names.
import type { AuditEvent } from "./useAudit";

/** A target such as "training/runs/<id>", taken apart; the id is empty where none stands in it. Roles go by name. */
export interface Target {
  kind: string;
  id: string;
}

const ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
/** Fields that call a thing by its name, the best first. */
const NAMES = ["username", "name", "title", "email"];

export function targetOf(text: string): Target {
  const parts = text.split("/");
  if (parts[0] === "roles") return { kind: "roles", id: parts[1] ?? "" };
  const index = parts.findIndex((part) => ID.test(part));
  return index < 0 ? { kind: "", id: "" } : { kind: parts.slice(0, index).join("/"), id: parts[index] ?? "" };
}

/** The names that events tell, by id; what is newer, and so first in the list, wins. */
export function namesIn(events: readonly AuditEvent[]): Map<string, string> {
  const names = new Map<string, string>();
  for (const event of [...events].reverse()) {
    if (event.actor_id && event.actor_name) names.set(event.actor_id, event.actor_name);
    for (const things of [event.before, event.after]) {
      for (const [label, thing] of Object.entries(objectIn(things))) {
        const name = nameIn(thing);
        if (name) names.set(label.slice(label.lastIndexOf("/") + 1), name);
      }
    }
  }
  return names;
}

/** Whether one of these events says that the target was deleted. */
export function isDeletedBy(events: readonly AuditEvent[], target: string): boolean {
  return events.some(
    (event) => event.target === target && event.result === "AUDIT_RESULT_DONE" && event.action.includes("/Delete"),
  );
}

function nameIn(thing: unknown): string {
  const fields = typeof thing === "object" && thing !== null ? (thing as Record<string, unknown>) : {};
  return NAMES.map((name) => fields[name]).find((value): value is string => typeof value === "string" && !!value) ?? "";
}

function objectIn(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text || "{}");
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

// The audit log: its events, what each of them changed, its export, and whether its chain is whole.
import { useQuery } from "@tanstack/vue-query";
import { computed, type MaybeRefOrGetter, onScopeDispose, shallowRef, toValue } from "vue";
import { api } from "../../api/client";
import { type Problem, problemOf } from "../../api/problem";
import { answerOf } from "../../api/queries";
import type { components, operations } from "../../api/schema";
import { useSession } from "../useSession";
import { isDeletedBy, namesIn, targetOf } from "./auditNames";
import { useRoles } from "./useRoles";
import { getUser, USERS } from "./useUsers";
import { given, type Page } from "./useKeysetList";

export type AuditEvent = components["schemas"]["auth.v1.AuditEvent"];
type ListQuery = NonNullable<operations["AuditService_ListAuditEvents"]["parameters"]["query"]>;

export const AUDIT = "admin-audit";
export const AUDIT_FILTERS = [
  "actor",
  "action",
  "target",
  "result",
  "address",
  "request_id",
  "start_time",
  "end_time",
  "query",
] as const;
export type AuditFilters = Record<(typeof AUDIT_FILTERS)[number], string>;

/** Events that are read to learn the name of one target. */
const MOST_OF_TARGET = 100;
const NAME_KEPT = 5 * 60_000;

/** A value that differs between before and after; undefined where there was none. */
export interface Change {
  field: string;
  before: string | undefined;
  after: string | undefined;
}

/** What happened to one thing, such as "users/…". */
export interface ChangedThing {
  name: string;
  verb: "created" | "changed" | "deleted";
  changes: Change[];
}

export async function listAuditEvents(query: ListQuery): Promise<Page<AuditEvent>> {
  const page = await answerOf(api.GET("/api/v1/audit-events", { params: { query } }));
  return { items: page.events, next: page.next_page_token };
}

/** Whose names the log knows from their beginning. */
const LOGGED = ["groups", "training/runs", "training/datasets", "models", "deployments", "prompts", "evaluations"];

/**
 * What a target is called, and whether it was deleted. The events at hand tell it, or the log of the target itself,
 * which whoever reads this may read; a user's name is asked for, because he may have come into being otherwise.
 */
export function useTargetName(target: MaybeRefOrGetter<string>, known: MaybeRefOrGetter<ReadonlyMap<string, string>>) {
  const { may } = useSession();
  const wanted = computed(() => targetOf(toValue(target)));
  const told = computed(() => toValue(known).get(wanted.value.id));
  const is = (kind: string): boolean => wanted.value.kind === kind;
  const { roles, isKnown: areRolesKnown } = useRoles();
  const user = useQuery({
    queryKey: computed(() => [USERS, "name", wanted.value.id]),
    queryFn: () => getUser(wanted.value.id),
    enabled: computed(() => is("users") && told.value === undefined && may("auth.users.get")),
    staleTime: NAME_KEPT,
    retry: false,
  });
  const log = useQuery({
    queryKey: computed(() => [AUDIT, "target", wanted.value]),
    queryFn: async () => {
      const { kind, id } = wanted.value;
      const { items } = await listAuditEvents({ target: `${kind}/${id}`, page_size: MOST_OF_TARGET });
      return { name: namesIn(items).get(id), isDeleted: isDeletedBy(items, `${kind}/${id}`) };
    },
    // Of a group the events at hand may be from before it was deleted.
    enabled: computed(() => LOGGED.includes(wanted.value.kind) && (told.value === undefined || is("groups"))),
    staleTime: NAME_KEPT,
    retry: false,
  });
  const name = computed(() =>
    is("roles") ? wanted.value.id : (told.value ?? user.data.value?.username ?? log.data.value?.name ?? ""),
  );
  const isDeleted = computed(() =>
    is("roles")
      ? areRolesKnown.value && !roles.value.some((role) => role.name === wanted.value.id)
      : (log.data.value?.isDeleted ?? false),
  );
  return { name, isDeleted };
}

/** Where the browser gets all events that match, as a file. */
export function exportAddress(filters: AuditFilters, format: "csv" | "jsonl"): string {
  return `/api/v1/audit-events:export?${new URLSearchParams({ ...given(filters), format }).toString()}`;
}

/** Lets the browser save a file of the platform; a session that has expired is renewed before, for a link cannot. */
export async function download(address: string): Promise<void> {
  await answerOf(api.GET("/api/v1/me"));
  const link = document.createElement("a");
  link.href = address;
  link.download = "";
  link.click();
}

/** "UpdateUser" of "espalier.auth.v1.UserService/UpdateUser", in words: "Update user". */
export function actionWords(action: string): string {
  const name = action.slice(action.lastIndexOf("/") + 1);
  const words = name.replace(/([a-z0-9])([A-Z])/g, "$1 $2").toLowerCase();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** What an event did, thing by thing and field by field; empty when it tells nothing. */
export function changesOf(event: AuditEvent): ChangedThing[] {
  const before = read(event.before);
  const after = read(event.after);
  return [...new Set([...Object.keys(before), ...Object.keys(after)])].map((name) => {
    const [old, now] = [before[name], after[name]];
    const [oldFields, nowFields] = [fieldsOf(old), fieldsOf(now)];
    const fields = [...new Set([...Object.keys(oldFields), ...Object.keys(nowFields)])].sort();
    return {
      name,
      verb: old === undefined ? "created" : now === undefined ? "deleted" : "changed",
      changes: fields.map((field) => ({ field, before: oldFields[field], after: nowFields[field] })),
    };
  });
}

function read(text: string): Record<string, unknown> {
  if (!text) return {};
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : { value };
  } catch {
    return { value: text };
  }
}

function fieldsOf(value: unknown): Record<string, string> {
  if (value === undefined) return {};
  if (typeof value !== "object" || value === null || Array.isArray(value)) return { value: textOf(value) };
  return Object.fromEntries(Object.entries(value).map(([field, each]) => [field, textOf(each)]));
}

function textOf(value: unknown): string {
  if (typeof value === "string") return value === "" ? "(empty)" : value;
  if (Array.isArray(value)) return value.length === 0 ? "(none)" : value.map(textOf).join(", ");
  return value === null ? "(none)" : JSON.stringify(value);
}

/** Walks along the whole chain, call by call, and tells how far it is. */
export function useVerification() {
  const isBusy = shallowRef(false);
  const checked = shallowRef(0);
  const verdict = shallowRef<{ intact: boolean; message: string; head: string; time: Date } | null>(null);
  const problem = shallowRef<Problem | null>(null);

  let isLeft = false;
  onScopeDispose(() => (isLeft = true));

  async function verify(): Promise<void> {
    isBusy.value = true;
    checked.value = 0;
    problem.value = null;
    try {
      let start = "";
      do {
        const query = start ? { start } : {};
        const found = await answerOf(api.GET("/api/v1/audit-events:verify", { params: { query } }));
        checked.value += Number(found.checked);
        verdict.value = { intact: found.intact, message: found.message, head: found.head, time: new Date() };
        start = found.next;
      } while (start && !isLeft);
    } catch (error) {
      problem.value = problemOf(error);
      verdict.value = null;
    } finally {
      isBusy.value = false;
    }
  }

  return { verify, isBusy, checked, verdict, problem };
}

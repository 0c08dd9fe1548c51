// Limits of use, in the units in which people think of them.
import { api } from "../../api/client";
import { ProblemError } from "../../api/problem";
import { answerOf } from "../../api/queries";
import type { components, operations } from "../../api/schema";
import { formatCount } from "./format";
import type { Page } from "./useKeysetList";

export type Quota = components["schemas"]["auth.v1.Quota"];
export type QuotaDraft = Pick<Quota, "user_id" | "group_id" | "kind" | "amount" | "period" | "time_zone">;
type Kind = Quota["kind"];
type ListQuery = NonNullable<operations["QuotaService_ListQuotas"]["parameters"]["query"]>;

export const QUOTAS = "admin-quotas";

/** What a limit of a kind is called, what it is counted in, and how often it can begin anew. */
export const KINDS: Partial<Record<Kind, { title: string; unit: string; factor: number; isHeld: boolean }>> = {
  USAGE_KIND_TOKENS_IN: { title: "Tokens, in and out", unit: "tokens", factor: 1, isHeld: false },
  USAGE_KIND_TOKENS_OUT: { title: "Tokens of answers", unit: "tokens", factor: 1, isHeld: false },
  USAGE_KIND_REQUESTS: { title: "Requests to models", unit: "requests", factor: 1, isHeld: false },
  USAGE_KIND_GPU_SECONDS: { title: "GPU time", unit: "GPU-hours", factor: 3600, isHeld: false },
  USAGE_KIND_CPU_SECONDS: { title: "CPU time", unit: "CPU-hours", factor: 3600, isHeld: false },
  USAGE_KIND_CONCURRENT_RUNS: { title: "Runs at a time", unit: "runs", factor: 1, isHeld: true },
  USAGE_KIND_STORED_BYTES: { title: "Stored data", unit: "GiB", factor: 1024 ** 3, isHeld: true },
};
export const PERIODS: Record<Quota["period"], string> = {
  QUOTA_PERIOD_UNSPECIFIED: "at a time",
  QUOTA_PERIOD_DAY: "a day",
  QUOTA_PERIOD_MONTH: "a month",
};

export async function listQuotas(query: ListQuery): Promise<Page<Quota>> {
  const page = await answerOf(api.GET("/api/v1/quotas", { params: { query } }));
  return { items: page.quotas, next: page.next_page_token };
}

/** A limit as it is now. Throws ProblemError, also when it is no longer there. */
export async function readQuota({ id, user_id, group_id, kind }: Quota): Promise<Quota> {
  const whose = user_id ? { user_id } : { group_id };
  const found = (await listQuotas({ ...whose, kind })).items.find((quota) => quota.id === id);
  if (found) return found;
  throw new ProblemError({ status: 404, title: "The limit is gone", detail: "Somebody has lifted this limit." });
}

export function createQuota(quota: QuotaDraft): Promise<Quota> {
  return answerOf(api.POST("/api/v1/quotas", { body: quota }));
}

/** Changes the limit as it was read; refused with 412 when somebody else changed it since. */
export function updateQuota(quota: Quota, changes: Pick<Quota, "amount" | "time_zone">): Promise<Quota> {
  return answerOf(
    api.PATCH("/api/v1/quotas/{quota.id}", {
      params: { path: { "quota.id": quota.id }, query: { update_mask: "amount,time_zone" } },
      body: { kind: quota.kind, etag: quota.etag, ...changes },
    }),
  );
}

export function deleteQuota(id: string): Promise<unknown> {
  return answerOf(api.DELETE("/api/v1/quotas/{quota_id}", { params: { path: { quota_id: id } } }));
}

/** An amount of a kind in its unit, such as "12 GPU-hours". */
export function amountOf(kind: Kind, amount: number): string {
  const known = KINDS[kind];
  return known ? `${formatCount(amount / known.factor)} ${known.unit}` : formatCount(amount);
}

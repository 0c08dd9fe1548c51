// The limits that bind the signed-in user, and how near he is to each.
import { useQuery } from "@tanstack/vue-query";
import { computed } from "vue";
import { api } from "../api/client";
import { answerOf } from "../api/queries";
import type { components } from "../api/schema";

export type Quota = components["schemas"]["auth.v1.Quota"];

/** From this share on a user is warned. */
export const NEAR = 0.8;

/** 0 to 1 and above; a limit of nothing is used up. */
export function shareOf(quota: Quota): number {
  return quota.amount > 0 ? quota.used / quota.amount : 1;
}

export function useMyQuotas() {
  const { data, error, refetch, isPending } = useQuery({
    queryKey: ["my-quotas"],
    queryFn: () => answerOf(api.GET("/api/v1/me/quotas")),
    refetchInterval: 60_000,
  });
  const quotas = computed(() => data.value?.quotas ?? []);
  /** The limit that is nearest, when it is near. */
  const nearest = computed(() => {
    const sorted = quotas.value.filter((quota) => shareOf(quota) >= NEAR).sort((a, b) => shareOf(b) - shareOf(a));
    return sorted[0] ?? null;
  });
  return { quotas, nearest, error, refetch, isPending };
}

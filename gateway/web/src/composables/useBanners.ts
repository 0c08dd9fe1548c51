// What everybody is told: loaded with the page, and again now and then while it is open.
import { useQuery } from "@tanstack/vue-query";
import { computed } from "vue";
import { api } from "../api/client";
import { answerOf } from "../api/queries";
import type { components } from "../api/schema";

export type Banner = components["schemas"]["auth.v1.Banner"];

/** Key of the query, to ask again when an administrator has changed a banner. */
export const CURRENT_BANNERS = ["banners", "current"];

export function useBanners() {
  const { data } = useQuery({
    queryKey: CURRENT_BANNERS,
    queryFn: () => answerOf(api.GET("/api/v1/banners:current")),
    refetchInterval: 60_000,
  });
  return { banners: computed(() => data.value?.banners ?? []) };
}

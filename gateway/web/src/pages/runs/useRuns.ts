// The training runs, kept fresh while the page is seen.
import { useInfiniteQuery } from "@tanstack/vue-query";
import { computed } from "vue";
import type { components } from "../../api/schema";
import { api } from "../../api/client";
import { answerOf } from "../../api/queries";

export type Run = components["schemas"]["training_orchestrator.v1.Run"];

const REFRESH = 2_000; // milliseconds

export function useRuns() {
  const { data, error, dataUpdatedAt, hasNextPage, isFetchingNextPage, fetchNextPage } = useInfiniteQuery({
    queryKey: ["runs"],
    initialPageParam: "",
    queryFn: ({ pageParam }) =>
      answerOf(api.GET("/api/v1/training/runs", { params: { query: { page_size: 50, page_token: pageParam } } })),
    getNextPageParam: (page) => page.next_page_token || undefined,
    refetchInterval: REFRESH,
    retry: false, // The next time comes soon enough.
  });
  return {
    runs: computed(() => data.value?.pages.flatMap((page) => page.runs) ?? []),
    isLoaded: computed(() => data.value !== undefined),
    error,
    updated: computed(() => (dataUpdatedAt.value ? new Date(dataUpdatedAt.value) : null)),
    hasMore: hasNextPage,
    isFetchingMore: isFetchingNextPage,
    more: () => fetchNextPage(),
  };
}

// A list that comes in keyset pages: which page stands in the address, and the way back is remembered.
import { keepPreviousData, useQuery } from "@tanstack/vue-query";
import { computed, shallowRef, type ComputedRef, type Ref, watch } from "vue";
import { type Filters, useUrlFilters } from "./useUrlFilters";

export const PAGE_SIZES = ["20", "50", "100"] as const;
const USUAL_SIZE = "50";

export interface Page<Item> {
  items: Item[];
  next: string;
}

/** What a page is asked for with; filters that are empty are left out. */
export interface PageQuery {
  page_size: number;
  page_token?: string;
}

/** What a pager shows of a list, and does with it. */
export interface Paging {
  items: ComputedRef<readonly unknown[]>;
  size: ComputedRef<string>;
  isFetching: Ref<boolean>;
  hasNext: ComputedRef<boolean>;
  hasPrevious: ComputedRef<boolean>;
  next(): void;
  previous(): void;
  resize(size: string): void;
}

/** `name` is the key of the query: whoever changes such things invalidates it. */
export function useKeysetList<Item, Name extends string>(
  name: string,
  filters: ComputedRef<Filters<Name>>,
  read: (query: PageQuery & Partial<Filters<Name>>) => Promise<Page<Item>>,
) {
  const { filters: paging, change } = useUrlFilters(["page", "size"]);
  const token = computed(() => paging.value.page);
  const size = computed(() => paging.value.size || USUAL_SIZE);
  const visited = shallowRef<string[]>([]);

  const query = useQuery({
    queryKey: computed(() => [name, filters.value, token.value, size.value]),
    queryFn: () =>
      read({ ...given(filters.value), page_size: Number(size.value), ...given({ page_token: token.value }) }),
    placeholderData: keepPreviousData,
  });
  const items = computed<Item[]>(() => query.data.value?.items ?? []);
  const following = computed(() => query.data.value?.next ?? "");

  // Told by the address alone: who turns pages with the browser's buttons, or clicks twice, comes to the same pages.
  watch(token, (now, before) => {
    const index = visited.value.indexOf(now);
    if (!now) visited.value = [];
    else visited.value = index >= 0 ? visited.value.slice(0, index) : [...visited.value, before];
  });

  function next(): void {
    change({ page: following.value });
  }

  function previous(): void {
    change({ page: visited.value.at(-1) ?? "" });
  }

  function resize(wanted: string): void {
    change({ size: wanted === USUAL_SIZE ? "" : wanted });
  }

  return {
    items,
    size,
    error: query.error,
    isLoading: query.isLoading,
    isFetching: query.isFetching,
    hasNext: computed(() => following.value !== ""),
    hasPrevious: computed(() => token.value !== ""),
    reload: () => query.refetch(),
    next,
    previous,
    resize,
  };
}

/** The entries that say something. */
export function given<Values extends Record<string, string>>(values: Values): Partial<Values> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== "")) as Partial<Values>;
}

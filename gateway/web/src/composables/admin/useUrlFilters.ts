// Filters that stand in the address, so that a link shows a colleague the same list.
import { computed, type ComputedRef } from "vue";
import { type LocationQueryValue, useRoute, useRouter } from "vue-router";

export type Filters<Name extends string> = Record<Name, string>;

/** Changes follow one another: each begins from the address that the one before made. */
let changing: Promise<unknown> = Promise.resolve();

/** The values of these names, empty where the address says none. `change` goes back to the first page of a list. */
export function useUrlFilters<Name extends string>(names: readonly Name[]) {
  const route = useRoute();
  const router = useRouter();
  const filters: ComputedRef<Filters<Name>> = computed(
    () => Object.fromEntries(names.map((name) => [name, textOf(route.query[name])])) as Filters<Name>,
  );
  const isFiltered = computed(() => names.some((name) => filters.value[name] !== ""));

  function change(changes: Partial<Filters<Name>> & { page?: string }): void {
    const { path } = route;
    changing = changing.then(() => {
      if (route.path !== path) return undefined;
      const query = Object.entries({ ...route.query, page: "", ...changes }).filter(([, value]) => value);
      const to = { query: Object.fromEntries(query) as Record<string, string>, hash: route.hash };
      return changes.page === undefined ? router.replace(to) : router.push(to);
    });
    // One that fails does not keep those after it from being made.
    changing = changing.catch(() => undefined);
  }

  function clear(): void {
    change(Object.fromEntries(names.map((name) => [name, ""])) as Partial<Filters<Name>>);
  }

  return { filters, isFiltered, change, clear };
}

function textOf(value: LocationQueryValue | LocationQueryValue[] | undefined): string {
  return (Array.isArray(value) ? value[0] : value) ?? "";
}

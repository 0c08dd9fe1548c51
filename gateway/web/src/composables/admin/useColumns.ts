// Which columns of a table somebody looks at; kept by the browser, for it is a matter of his eyes and window.
import { computed, ref } from "vue";
import type { Column } from "../../components/admin/DataTable.vue";

/** Columns that can be left out: all but the first, which tells what a row is, and those without a title to see. */
export function useColumns(table: string, all: Column[]) {
  const key = `espalier-columns-${table}`;
  const choices = all.slice(1).filter((column) => !column.isTitleHidden);
  const hidden = ref(read(key).filter((name) => choices.some((column) => column.key === name)));
  const columns = computed(() => all.filter((column) => !hidden.value.includes(column.key)));

  function show(name: string, isShown: boolean): void {
    const others = hidden.value.filter((each) => each !== name);
    hidden.value = isShown ? others : [...others, name];
    localStorage.setItem(key, JSON.stringify(hidden.value));
  }

  return { columns, choices, hidden, show };
}

function read(key: string): string[] {
  try {
    const found: unknown = JSON.parse(localStorage.getItem(key) ?? "[]");
    return Array.isArray(found) ? found.filter((each): each is string => typeof each === "string") : [];
  } catch {
    return [];
  }
}

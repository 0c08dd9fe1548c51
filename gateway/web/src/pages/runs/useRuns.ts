// The training runs, kept fresh while the page is seen.
import { onMounted, onUnmounted, ref, shallowRef } from "vue";
import type { components } from "../../api/schema";
import { api } from "../../api/client";
import { type Problem, problemOf } from "../../api/problem";

export type Run = components["schemas"]["training_orchestrator.v1.Run"];

const refreshMilliseconds = 2_000;

export function useRuns() {
  const runs = shallowRef<Run[]>([]);
  const nextPageToken = ref("");
  const isLoaded = ref(false);
  const problem = ref<Problem | null>(null);
  const updated = ref<Date | null>(null);
  let pages = 1;
  let timer = 0;

  async function fetchPages(): Promise<void> {
    const found: Run[] = [];
    let token = "";
    for (let page = 0; page < pages; page += 1) {
      const { data, error, response } = await api.GET("/api/v1/training/runs", {
        params: { query: { page_size: 50, page_token: token } },
      });
      if (!data) {
        problem.value = problemOf(error, response);
        return;
      }
      found.push(...(data.runs ?? []));
      token = data.next_page_token ?? "";
      if (!token) break;
    }
    runs.value = found;
    nextPageToken.value = token;
    problem.value = null;
    isLoaded.value = true;
    updated.value = new Date();
  }

  async function reload(): Promise<void> {
    try {
      if (!document.hidden) await fetchPages();
    } catch (error) {
      problem.value = problemOf(error);
    }
    timer = window.setTimeout(reload, refreshMilliseconds);
  }

  async function more(): Promise<void> {
    pages += 1;
    await fetchPages();
  }

  onMounted(reload);
  onUnmounted(() => window.clearTimeout(timer));
  return { runs, nextPageToken, isLoaded, problem, updated, more };
}

// How long one has to wait after a refusal that says so.
import { onScopeDispose, ref, watch } from "vue";
import { problemOf } from "../api/problem";

/** Seconds until it is worth trying again, counted down to 0; `error` is what a call threw. */
export function useWait(error: () => unknown) {
  const seconds = ref(0);
  let timer = 0;

  watch(
    error,
    (cause) => {
      window.clearInterval(timer);
      seconds.value = cause ? (problemOf(cause).retry_after ?? 0) : 0;
      if (seconds.value > 0) timer = window.setInterval(tick, 1_000);
    },
    { immediate: true },
  );

  function tick(): void {
    seconds.value -= 1;
    if (seconds.value <= 0) window.clearInterval(timer);
  }

  onScopeDispose(() => window.clearInterval(timer));
  return seconds;
}

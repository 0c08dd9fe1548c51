// The time of now, which goes on while a page is open.
import { onScopeDispose, readonly, ref } from "vue";

const STEP = 30_000; // milliseconds; what is told are minutes
const now = ref(Date.now());
let users = 0;
let timer = 0;

/** Milliseconds since 1970; one clock for all who ask. */
export function useNow() {
  if (users === 0) timer = window.setInterval(() => (now.value = Date.now()), STEP);
  users += 1;
  now.value = Date.now();
  onScopeDispose(() => {
    users -= 1;
    if (users === 0) window.clearInterval(timer);
  });
  return readonly(now);
}

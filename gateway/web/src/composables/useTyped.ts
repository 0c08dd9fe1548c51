// What is typed into a field whose value is kept elsewhere, such as in the address, and comes back from there later.
import { ref, watch } from "vue";

/**
 * `text` is what the field shows. It follows the value, but for what `told` has said of it: that comes back a moment
 * later, while the typing has gone on. `onReplaced` hears of a value that somebody else set.
 */
export function useTyped(value: () => string, onReplaced?: () => void) {
  const text = ref(value());
  let underWay: string[] = [];

  watch(value, (now) => {
    const index = underWay.indexOf(now);
    underWay = underWay.slice(index + 1);
    if (index >= 0) return;
    underWay = [];
    text.value = now;
    onReplaced?.();
  });

  /** False when it is what was told last, or what the value is. */
  function told(now: string): boolean {
    if (now === (underWay.at(-1) ?? value())) return false;
    underWay.push(now);
    return true;
  }

  return { text, told };
}

// Copying a text that stands in a field.
import { type Ref, ref, watch } from "vue";

/** `isRefused` when the browser did not let the page copy: then the text is selected, to be copied by key. */
export function useCopy(field: Ref<HTMLInputElement | HTMLTextAreaElement | undefined>, text: () => string) {
  const isCopied = ref(false);
  const isRefused = ref(false);
  watch(text, () => (isCopied.value = isRefused.value = false));

  async function copy(): Promise<void> {
    // Without https a browser has no clipboard for pages.
    field.value?.select();
    const wanted = text();
    const isDone = await copied(wanted);
    if (wanted !== text()) return;
    isCopied.value = isDone;
    isRefused.value = !isDone;
  }

  return { isCopied, isRefused, copy };
}

async function copied(text: string): Promise<boolean> {
  if (!navigator.clipboard) return false;
  return await navigator.clipboard.writeText(text).then(
    () => true,
    () => false,
  );
}

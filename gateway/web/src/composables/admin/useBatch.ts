// The same action on several things, one after the other, each with its own result.
import { ref, shallowRef } from "vue";
import { problemOf } from "../../api/problem";
import { queryClient } from "../../api/queries";

export interface Outcome {
  name: string;
  /** Empty when it was done. */
  failure: string;
}

export function useBatch(...invalidates: string[]) {
  const outcomes = shallowRef<Outcome[]>([]);
  const isBusy = ref(false);
  const left = ref(0);

  async function run<Item>(items: Item[], nameOf: (item: Item) => string, call: (item: Item) => Promise<unknown>) {
    if (isBusy.value) return;
    isBusy.value = true;
    outcomes.value = [];
    left.value = items.length;
    for (const item of items) {
      const failure = await call(item).then(
        () => "",
        (error: unknown) => problemOf(error).detail,
      );
      outcomes.value = [...outcomes.value, { name: nameOf(item), failure }];
      left.value -= 1;
    }
    isBusy.value = false;
    await Promise.all(invalidates.map((name) => queryClient.invalidateQueries({ queryKey: [name] })));
  }

  return { run, outcomes, isBusy, left };
}

// The fields of a form that shows a thing of the platform, which is read anew now and then.
import { computed, reactive, shallowRef, type UnwrapNestedRefs, watch } from "vue";

type Field = string | string[];

/**
 * `fieldsOf` says what the form has of a thing. Until something is typed the form follows the thing. From then on what
 * was typed stays, and `base` is the thing as it was when that began: a change is sent with its etag, so that it is
 * refused when somebody else has changed the thing since.
 */
export function useDraft<Thing, Fields extends Record<string, Field>>(
  thing: () => Thing,
  fieldsOf: (thing: Thing) => Fields,
) {
  const base = shallowRef(thing());
  const draft = reactive(fieldsOf(base.value)) as UnwrapNestedRefs<Fields> & Fields;
  const names = Object.keys(draft) as (keyof Fields)[];
  const changed = computed(() => {
    const before = fieldsOf(base.value);
    return names.filter((name) => !isSame(draft[name], before[name]));
  });
  const isChanged = computed(() => changed.value.length > 0);

  watch(thing, (now) => {
    if (!isChanged.value) fill(now);
  });

  function fill(from: Thing): void {
    base.value = from;
    Object.assign(draft, fieldsOf(from));
  }

  /** What is sent now; give it to `saved` when it has been taken. */
  function copy(): Fields {
    return Object.fromEntries(names.map((name) => [name, copyOf(draft[name])])) as Fields;
  }

  /** The thing as it is after a change; what was typed while that was under way stays. */
  function saved(now: Thing, sent: Fields): void {
    const fields = fieldsOf(now);
    base.value = now;
    for (const name of names) if (isSame(draft[name], sent[name])) Object.assign(draft, { [name]: fields[name] });
  }

  return { draft, base, changed, isChanged, copy, saved, reset: () => fill(thing()) };
}

/** Lists of names count as sets. */
function isSame(one: Field | undefined, other: Field | undefined): boolean {
  if (!Array.isArray(one) || !Array.isArray(other)) return one === other;
  return one.length === other.length && [...one].sort().join() === [...other].sort().join();
}

function copyOf(field: Field | undefined): Field | undefined {
  return Array.isArray(field) ? [...field] : field;
}

import { nextTick, shallowRef } from "vue";
import { expect, test } from "vitest";
import { useDraft } from "../src/composables/useDraft";

const read = (etag: string, name: string, roles: string[] = []) => ({ etag, name, roles });

function open() {
  const thing = shallowRef(read("1", "Ada", ["tester"]));
  return { thing, form: useDraft(() => thing.value, ({ name, roles }) => ({ name, roles: [...roles] })) };
}

test("a form follows its thing until something is typed", async () => {
  const { thing, form } = open();
  thing.value = read("2", "Ada L.");
  await nextTick();
  expect(form.draft.name).toBe("Ada L.");
  expect(form.isChanged.value).toBe(false);
});

test("what was typed outlives the next load, and is sent as a change of what was read", async () => {
  const { thing, form } = open();
  form.draft.name = "Ada B.";
  thing.value = read("2", "Ada L.");
  await nextTick();
  expect(form.draft.name).toBe("Ada B.");
  expect(form.base.value.etag).toBe("1");
  form.reset();
  expect([form.draft.name, form.base.value.etag]).toEqual(["Ada L.", "2"]);
});

test("what is typed while a change is under way stays, and is a change of what came of it", () => {
  const { form } = open();
  form.draft.name = "  Ada B. ";
  const sent = form.copy();
  form.draft.roles = ["viewer"];
  form.saved(read("2", "Ada B.", ["tester"]), sent);
  expect(form.draft).toEqual({ name: "Ada B.", roles: ["viewer"] });
  expect(form.changed.value).toEqual(["roles"]);
});

test("roles in another order are no change", () => {
  const { form } = open();
  form.draft.roles = ["tester"];
  expect(form.isChanged.value).toBe(false);
});

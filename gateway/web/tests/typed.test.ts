import { nextTick, ref } from "vue";
import { expect, test } from "vitest";
import { useTyped } from "../src/composables/useTyped";

test("what comes back late does not take letters away, and what somebody else set does", async () => {
  const value = ref("");
  const { text, told } = useTyped(() => value.value);
  text.value = "no";
  expect(told("no")).toBe(true);
  text.value = "nora";
  expect(told("nora")).toBe(true);
  text.value = "nora b";
  for (const late of ["no", "nora"]) {
    value.value = late;
    await nextTick();
    expect(text.value).toBe("nora b");
  }
  expect(told("nora")).toBe(false);
  value.value = "";
  await nextTick();
  expect(text.value).toBe("");
});

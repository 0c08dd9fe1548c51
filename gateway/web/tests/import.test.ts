import "./browser";
import { ref } from "vue";
import { expect, test } from "vitest";
import { type Known, useUserImport } from "../src/composables/admin/useUserImport";

const known: Known = { roles: [{ name: "tester" }], groups: [{ id: "7", name: "vision" }] };
const FILE = "username,roles,groups\nada,tester,vision\nBob,pilot,\nada,,speech\n";

test("no row is judged before roles and groups are there, and all are judged anew when they change", () => {
  const now = ref<Known | null>(null);
  const { rows, isWaiting, wrong } = useUserImport(ref(FILE), now);
  expect([rows.value.length, isWaiting.value]).toEqual([0, true]);
  now.value = known;
  expect([rows.value.length, isWaiting.value]).toEqual([3, false]);
  expect(wrong.value.map((row) => row.line)).toEqual([3, 4]);
  now.value = { ...known, roles: [{ name: "tester" }, { name: "pilot" }] };
  expect(rows.value[1]?.errors.join()).not.toContain("pilot");
});

test("each wrong row says all that is wrong with it, under the line of the file", () => {
  const { rows } = useUserImport(ref(FILE), ref(known));
  expect(rows.value[0]).toMatchObject({ line: 2, errors: [], groupIds: ["7"] });
  expect(rows.value[1]?.errors).toEqual([expect.stringContaining('"Bob"'), 'there is no role "pilot"']);
  expect(rows.value[2]?.errors).toEqual(['username "ada" stands in line 2 already', 'there is no group "speech"']);
});

test("roles that one may not see are left to the platform", () => {
  const { rows } = useUserImport(ref("username,roles\nada,pilot\n"), ref<Known | null>({ roles: null, groups: null }));
  expect(rows.value[0]?.errors).toEqual([]);
});

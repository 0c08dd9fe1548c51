import "./browser";
import { beforeEach, expect, test } from "vitest";
import { useColumns } from "../src/composables/admin/useColumns";

const ALL = [
  { key: "name", title: "User" },
  { key: "roles", title: "Roles" },
  { key: "actions", title: "Actions", isTitleHidden: true },
];

beforeEach(() => localStorage.clear());

test("a column that is left out stays so for the next page, and comes back in its place", () => {
  useColumns("users", ALL).show("roles", false);
  const { columns, choices, show } = useColumns("users", ALL);
  expect(choices.map(({ key }) => key)).toEqual(["roles"]);
  expect(columns.value.map(({ key }) => key)).toEqual(["name", "actions"]);
  show("roles", true);
  expect(columns.value).toEqual(ALL);
});

test("what the browser keeps and no table has any more hides nothing", () => {
  localStorage.setItem("espalier-columns-users", '["name", "gone", 7]');
  expect(useColumns("users", ALL).columns.value).toEqual(ALL);
  localStorage.setItem("espalier-columns-users", "no JSON {");
  expect(useColumns("users", ALL).columns.value).toEqual(ALL);
});

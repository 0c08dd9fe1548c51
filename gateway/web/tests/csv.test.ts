import { expect, test } from "vitest";
import { parseCsv, toCsv } from "../src/composables/admin/csv";

test("cells with separators, quotes and line breaks come back as they were", () => {
  const rows = [["name", "note"], ["a,b", 'said "yes"'], ["two\nlines", ""]];
  expect(parseCsv(toCsv(rows))).toEqual(rows);
});

test("a file of a spreadsheet is read: byte order mark, semicolons, Windows line ends, empty lines", () => {
  expect(parseCsv("\uFEFFname;roles\r\nada;a,b\r\n\r\n;\r\n")).toEqual([["name", "roles"], ["ada", "a,b"]]);
});

test("no text is written that a spreadsheet would run, and numbers stay numbers", () => {
  expect(toCsv([["=1+1", "@x", "-2", -2]])).toBe("'=1+1,'@x,'-2,-2");
});

import { expect, test } from "vitest";
import { parseCsv, toCsv } from "../src/composables/admin/csv";

test("cells with separators, quotes and line breaks come back as they were", () => {
  const rows = [["name", "note"], ["a,b", 'said "yes"'], ["two\nlines", ""]];
  expect(parseCsv(toCsv(rows)).map(({ cells }) => cells)).toEqual(rows);
});

test("a file of a spreadsheet is read: byte order mark, semicolons, Windows line ends, empty lines", () => {
  const file = '\uFEFFname;roles\r\nada;"a,b\r\nc"\r\n\r\n;\r\ngrace;d';
  expect(parseCsv(file)).toEqual([
    { line: 1, cells: ["name", "roles"] },
    { line: 2, cells: ["ada", "a,b\r\nc"] },
    { line: 6, cells: ["grace", "d"] },
  ]);
});

test("no text is written that a spreadsheet would run, and numbers stay numbers", () => {
  expect(toCsv([["=1+1", "@x", "-2", -2]])).toBe("'=1+1,'@x,'-2,-2");
});

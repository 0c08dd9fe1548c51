// CSV as RFC 4180 has it, both ways.

export interface CsvRow {
  /** Where it begins in the text, from 1. */
  line: number;
  cells: string[];
}

/** Rows that are not empty. Commas or semicolons, whichever the first line has more of; a byte order mark is skipped. */
export function parseCsv(text: string): CsvRow[] {
  const source = text.replace(/^\uFEFF/, "");
  const firstLine = source.slice(0, (source.indexOf("\n") + 1 || source.length + 1) - 1);
  const separator = firstLine.split(";").length > firstLine.split(",").length ? ";" : ",";
  const rows: CsvRow[] = [];
  let row: string[] = [];
  let [line, first] = [1, 1];
  let cell = "";
  let isQuoted = false;
  for (let index = 0; index < source.length; index += 1) {
    const letter = source.charAt(index);
    if (letter === "\n") line += 1;
    if (isQuoted) {
      if (letter !== '"') cell += letter;
      else if (source.charAt(index + 1) === '"') cell += source.charAt(++index);
      else isQuoted = false;
    } else if (letter === '"' && cell === "") {
      isQuoted = true;
    } else if (letter === separator) {
      row.push(cell);
      cell = "";
    } else if (letter === "\n") {
      rows.push({ line: first, cells: [...row, cell] });
      row = [];
      cell = "";
      first = line;
    } else if (letter !== "\r") {
      cell += letter;
    }
  }
  if (cell || row.length) rows.push({ line: first, cells: [...row, cell] });
  return rows.filter(({ cells }) => cells.some((each) => each.trim() !== ""));
}

/** The rows as text. What a spreadsheet would take for a formula is led by an apostrophe, so that it never runs. */
export function toCsv(rows: (string | number)[][]): string {
  return rows.map((row) => row.map(toCell).join(",")).join("\r\n");
}

function toCell(value: string | number): string {
  if (typeof value === "number") return String(value);
  const harmless = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}

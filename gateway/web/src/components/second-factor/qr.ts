// QR codes as what an SVG draws.
import encode from "qr";

/** Empty squares around it, which readers need. */
const QUIET = 4;

/** Which squares are dark, row by row. */
export function squaresOf(text: string): boolean[][] {
  return encode(text, "raw", { border: QUIET });
}

/** The dark squares, each of side 1, as a path; those side by side in one go. */
export function pathOf(rows: boolean[][]): string {
  return rows.flatMap((row, y) => runsOf(row).map(([x, length]) => `M${x} ${y}h${length}v1h-${length}z`)).join("");
}

function runsOf(row: boolean[]): [number, number][] {
  const text = row.map((isDark) => (isDark ? "#" : ".")).join("");
  return [...text.matchAll(/#+/g)].map(({ 0: run, index }) => [index, run.length]);
}

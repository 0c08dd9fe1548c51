import decode from "qr/decode.js";
import { expect, test } from "vitest";
import { pathOf, squaresOf } from "../src/components/second-factor/qr";

const SCALE = 4;

/** The picture that a path of dark squares gives, as a camera would see it. */
function photographed(path: string, side: number) {
  const data = new Uint8ClampedArray((side * SCALE) ** 2 * 4).fill(255);
  for (const [, x, y, length] of path.matchAll(/M(\d+) (\d+)h(\d+)v1h-\d+z/g)) {
    for (let row = Number(y) * SCALE; row < (Number(y) + 1) * SCALE; row += 1) {
      const from = (row * side * SCALE + Number(x) * SCALE) * 4;
      for (let dot = 0; dot < Number(length) * SCALE; dot += 1) data.set([0, 0, 0], from + dot * 4);
    }
  }
  return { width: side * SCALE, height: side * SCALE, data };
}

test("what is drawn is read as the text", () => {
  const text = "otpauth://totp/Espalier%20a.example.org:%C3%A9mile?secret=HO75MQENCSRGZ7ZF45SVCUMRC7L276AZ&digits=6";
  const rows = squaresOf(text);
  expect(decode(photographed(pathOf(rows), rows.length))).toBe(text);
});

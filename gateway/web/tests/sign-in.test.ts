import { expect, test } from "vitest";
import { stepAfter } from "../src/composables/useSignIn";

const problem = (status: number, reason = "") => ({ status, reason, title: "", detail: "" });

test("a code is asked for where there is a second factor, and the password is not typed twice", () => {
  expect(stepAfter("password", problem(401, "SECOND_FACTOR_REQUIRED"))).toBe("code");
  expect(stepAfter("code", problem(401, "SECOND_FACTOR_WRONG"))).toBe("code");
  expect([0, 429, 503].map((status) => stepAfter("code", problem(status)))).toEqual(["code", "code", "code"]);
});

test("the password is asked for again when it is good no more", () => {
  expect(stepAfter("code", problem(401, "INVALID_CREDENTIALS"))).toBe("password");
  expect(stepAfter("password", problem(401, "INVALID_CREDENTIALS"))).toBe("password");
});

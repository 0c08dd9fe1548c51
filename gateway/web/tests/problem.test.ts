import { expect, test } from "vitest";
import { ProblemError, problemOf } from "../src/api/problem";
import { fieldError, isStale, restOf } from "../src/composables/admin/useAction";

test("a platform that does not answer is told as such, and one that answers nonsense by its status", () => {
  expect(problemOf(new TypeError("Failed to fetch"))).toMatchObject({ status: 0, detail: /running/ });
  expect(problemOf(undefined, new Response("", { status: 502 }))).toMatchObject({ status: 502, detail: /502/ });
});

test("how long to wait comes out of the header", () => {
  const answer = new Response("", { status: 429, headers: { "retry-after": "12" } });
  expect(problemOf({ status: 429, title: "Wait", detail: "Too many tries." }, answer).retry_after).toBe(12);
});

test("what a field says is not said again above the button", () => {
  const violations = [
    { field: "user.roles[0]", description: "is no role" },
    { field: "user.email", description: "is no address" },
  ];
  const { problem } = new ProblemError({ status: 400, title: "Wrong", detail: "Two fields are wrong.", violations });
  expect(fieldError(problem, "user.roles")).toBe("is no role");
  expect(restOf(problem, "user.roles")?.violations).toEqual([violations[1]]);
  expect(restOf(problem, "user.roles", "user.email")).toBeNull();
  expect(isStale({ ...problem, status: 412 })).toBe(true);
});

// Something that a user does: runs once at a time, says what failed, and lets the lists that it changes load again.
import { ref, shallowRef } from "vue";
import { type Problem, problemOf } from "../../api/problem";
import { queryClient } from "../../api/queries";

/** `invalidates` are the names of the queries that the action makes stale. */
export function useAction<Args extends unknown[], Result>(
  call: (...args: Args) => Promise<Result>,
  ...invalidates: string[]
) {
  const isBusy = ref(false);
  const problem = shallowRef<Problem | null>(null);

  /** The result; undefined when it failed, and then `problem` says why, or when it is under way already. */
  async function run(...args: Args): Promise<Result | undefined> {
    if (isBusy.value) return undefined;
    isBusy.value = true;
    problem.value = null;
    try {
      const result = await call(...args);
      void Promise.all(invalidates.map((name) => queryClient.invalidateQueries({ queryKey: [name] })));
      return result;
    } catch (error) {
      problem.value = problemOf(error);
      return undefined;
    } finally {
      isBusy.value = false;
    }
  }

  return { run, isBusy, problem, forget: () => (problem.value = null) };
}

/** What is said about a field or a part of it; `field` is its path in the API. */
export function fieldError(problem: Problem | null, field: string): string {
  return (problem?.violations ?? [])
    .filter(
      (found) => found.field === field || found.field.startsWith(`${field}[`) || found.field.startsWith(`${field}.`),
    )
    .map((found) => found.description)
    .join("; ");
}

/** The problem without what its fields already say; null when they say it all. */
export function restOf(problem: Problem | null, ...fields: string[]): Problem | null {
  if (!problem) return null;
  const violations = (problem.violations ?? []).filter((found) =>
    fields.every((field) => fieldError({ ...problem, violations: [found] }, field) === ""),
  );
  return problem.violations?.length && violations.length === 0 ? null : { ...problem, violations };
}

/** Whether the thing was changed by somebody else since it was read. */
export function isStale(problem: Problem | null): boolean {
  return problem?.status === 412;
}

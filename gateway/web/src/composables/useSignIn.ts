// A sign-in in one step or two: the code of a second factor is asked for once the platform says that there is one.
import { useMutation } from "@tanstack/vue-query";
import { computed, ref } from "vue";
import type { Problem } from "../api/problem";

export type Step = "password" | "code";

const REQUIRED = "SECOND_FACTOR_REQUIRED";
const WRONG = "SECOND_FACTOR_WRONG";

/** The step that follows when one has failed. */
export function stepAfter(step: Step, { status, reason }: Problem): Step {
  if (reason === REQUIRED || reason === WRONG) return "code";
  // What did not answer, or only later, says nothing of the password; a 401 says that it is good no more.
  return status === 401 ? "password" : step;
}

/** `attempt` signs in, with a code in the second step. It is typed anew when it was wrong, the password is not. */
export function useSignIn(attempt: (code: string) => Promise<unknown>, onSuccess?: () => unknown) {
  const step = ref<Step>("password");
  const code = ref("");
  /** How many codes were wrong: with each, the field begins anew. */
  const failures = ref(0);
  const { mutate, error, isPending, reset } = useMutation({
    mutationFn: () => attempt(step.value === "code" ? code.value.trim() : ""),
    onError: ({ problem }) => {
      step.value = stepAfter(step.value, problem);
      if (problem.reason !== WRONG) return;
      code.value = "";
      failures.value += 1;
    },
    onSuccess: () => onSuccess?.(),
  });
  /** What went wrong; that a code is needed, too, is no fault of anybody. */
  const told = computed(() => (error.value?.problem.reason === REQUIRED ? null : error.value));

  /** Back to the password, as if nothing had been tried. */
  function begin(): void {
    step.value = "password";
    code.value = "";
    reset();
  }

  return { step, code, failures, submit: () => mutate(), error: told, isPending, begin };
}

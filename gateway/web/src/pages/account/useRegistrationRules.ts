// What somebody without an account needs to know: who may register, how long a password is, whether mail is sent.
import { useQuery } from "@tanstack/vue-query";
import { computed } from "vue";
import { api } from "../../api/client";
import { answerOf } from "../../api/queries";

const SHORTEST_PASSWORD = 12;

export function useRegistrationRules() {
  const { data, error, refetch } = useQuery({
    queryKey: ["registration-rules"],
    queryFn: () => answerOf(api.GET("/api/v1/auth/registration")),
    staleTime: 60_000,
  });
  const mode = computed(() => data.value?.mode ?? "");
  const minimum = computed(() => data.value?.password_min_length ?? SHORTEST_PASSWORD);
  return {
    mode,
    error,
    refetch,
    isKnown: computed(() => data.value !== undefined),
    isOpen: computed(() => mode.value === "open"),
    sendsMail: computed(() => data.value?.sends_mail ?? true),
    minimum,
    passwordHint: computed(() => `At least ${minimum.value} characters; a sentence is good.`),
  };
}

/** Characters as people count them. */
export function lengthOf(text: string): number {
  return [...text].length;
}

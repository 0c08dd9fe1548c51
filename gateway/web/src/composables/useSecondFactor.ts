// One's own second factor: whether there is one, and what can be done with it.
import { useQuery } from "@tanstack/vue-query";
import { api } from "../api/client";
import { answerOf } from "../api/queries";
import type { components } from "../api/schema";

export type SecondFactorSecret = components["schemas"]["auth.v1.SecondFactorSecret"];

/** Key of the query, to ask again when something has been changed. */
export const SECOND_FACTOR = ["second-factor"];

export function useSecondFactor() {
  return useQuery({
    queryKey: SECOND_FACTOR,
    queryFn: () => answerOf(api.GET("/api/v1/me/second-factor")),
    staleTime: 0,
  });
}

/** The secret for an authenticator; nothing asks for its codes before one has been given. */
export function beginEnrolment(): Promise<SecondFactorSecret> {
  return answerOf(api.POST("/api/v1/me/second-factor", { body: {} }));
}

/** Makes the factor live; gives the recovery codes. */
export async function confirmEnrolment(code: string): Promise<string[]> {
  return (await answerOf(api.POST("/api/v1/me/second-factor:confirm", { body: { code } }))).recovery_codes;
}

export async function createRecoveryCodes(code: string): Promise<string[]> {
  return (await answerOf(api.POST("/api/v1/me/second-factor:newRecoveryCodes", { body: { code } }))).recovery_codes;
}

export async function removeSecondFactor(code: string): Promise<void> {
  await answerOf(api.POST("/api/v1/me/second-factor:remove", { body: { code } }));
}

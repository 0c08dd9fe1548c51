// State of the server: calls become queries and mutations whose error is always a ProblemError.
import { QueryClient } from "@tanstack/vue-query";
import { ProblemError, problemOf } from "./problem";

declare module "@tanstack/vue-query" {
  interface Register {
    defaultError: ProblemError;
  }
}

interface Answer<Data> {
  data?: Data;
  error?: unknown;
  response: Response;
}

/** The data of a call. Throws ProblemError when it failed or when nothing answered. */
export async function answerOf<Data>(call: Promise<Answer<Data>>): Promise<Data> {
  const { data, error, response } = await call.catch((cause: unknown) => {
    throw new ProblemError(problemOf(cause));
  });
  if (!response.ok || data === undefined) throw new ProblemError(problemOf(error, response));
  return data;
}

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 5_000,
      // What the platform refuses stays refused; what did not answer may answer soon.
      retry: (failures, error) => failures < 2 && (error.problem.status === 0 || error.problem.status >= 500),
    },
  },
});

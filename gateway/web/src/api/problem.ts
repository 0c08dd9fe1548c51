// What went wrong, as the platform says it, and as an error that queries and pages pass on.

/** A problem in the form of RFC 9457. */
export interface Problem {
  status: number;
  title: string;
  detail: string;
  reason?: string;
  request_id?: string;
  /** Seconds after which it is worth trying again. */
  retry_after?: number;
  violations?: { field: string; description: string }[];
}

export class ProblemError extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail);
    this.name = "ProblemError";
  }
}

/** The problem in an answer that failed, whatever sent it. */
export function problemOf(error: unknown, response?: Response): Problem {
  if (error instanceof ProblemError) return error.problem;
  const given = (typeof error === "object" && error !== null ? error : {}) as Partial<Problem>;
  const status = given.status ?? response?.status ?? 0;
  const wait = Number.parseInt(response?.headers.get("retry-after") ?? "", 10);
  return {
    ...given,
    status,
    title: given.title ?? "The platform did not answer",
    detail: given.detail ?? (status ? `It answered with status ${status}.` : "Is it running? Try again in a moment."),
    ...(Number.isFinite(wait) ? { retry_after: wait } : {}),
  };
}

/** What a field is told about its value; empty when nothing. `field` is the path as the API names it. */
export function violationOf(problem: Problem | null, field: string): string {
  return problem?.violations?.find((violation) => violation.field === field)?.description ?? "";
}

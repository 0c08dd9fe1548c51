// The one door to the platform: typed calls on the REST API, signed in by cookies that the page itself cannot read.
import createClient, { type Middleware } from "openapi-fetch";
import type { paths } from "./schema";

/** What went wrong, as the platform says it (RFC 9457). */
export interface Problem {
  status: number;
  title: string;
  detail: string;
  reason?: string;
  request_id?: string;
  violations?: { field: string; description: string }[];
}

const unsafe = new Set(["POST", "PUT", "PATCH", "DELETE"]);

/** The value that proves that this page, and no other site, makes the call; the gateway put it into a readable cookie. */
function csrfToken(): string {
  const pair = document.cookie.split("; ").find((cookie) => /^(__Host-)?espalier_csrf=/.test(cookie));
  return pair ? decodeURIComponent(pair.slice(pair.indexOf("=") + 1)) : "";
}

let refreshing: Promise<boolean> | undefined;

/** Renews the session. Calls that expire together share one renewal, and so do all tabs of the browser. */
export function refresh(): Promise<boolean> {
  const renewal = refreshing ?? renewAlone();
  refreshing = renewal;
  return renewal.finally(() => (refreshing = undefined));
}

async function renewAlone(): Promise<boolean> {
  return await navigator.locks.request("espalier-refresh", renew);
}

/** Asks for the next pair of tokens, unless another tab has just got it for this browser. */
async function renew(): Promise<boolean> {
  const before = Number(localStorage.getItem("espalier-refreshed") ?? 0);
  if (Date.now() - before < 5_000) return true;
  const answer = await fetch("/api/v1/auth/refresh", {
    method: "POST",
    headers: { "content-type": "application/json", "x-csrf-token": csrfToken() },
    body: "{}",
  });
  if (answer.ok) localStorage.setItem("espalier-refreshed", String(Date.now()));
  return answer.ok;
}

const session: Middleware = {
  onRequest({ request }) {
    if (unsafe.has(request.method)) request.headers.set("x-csrf-token", csrfToken());
    return request;
  },
};

/** Renews an expired session once and repeats the call; a sign-in that fails is an answer, not an expired session. */
async function renewingFetch(request: Request): Promise<Response> {
  const again = request.clone();
  const answer = await fetch(request);
  if (answer.status !== 401 || request.url.includes("/api/v1/auth/")) return answer;
  if (!(await refresh())) return answer;
  if (unsafe.has(again.method)) again.headers.set("x-csrf-token", csrfToken());
  return fetch(again);
}

export const api = createClient<paths>({ baseUrl: location.origin, fetch: renewingFetch });
api.use(session);

/** The problem in an answer that failed, whatever sent it. */
export function problemOf(error: unknown, response?: Response): Problem {
  const given = (typeof error === "object" && error !== null ? error : {}) as Partial<Problem>;
  const status = given.status ?? response?.status ?? 0;
  return {
    ...given,
    status,
    title: given.title ?? "The platform did not answer",
    detail: given.detail ?? (status ? `It answered with status ${status}.` : "Is it running? Try again in a moment."),
  };
}

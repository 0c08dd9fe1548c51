// The one door to the platform: typed calls on the REST API, signed in by cookies that the page itself cannot read.
import createClient, { type Middleware } from "openapi-fetch";
import { problemOf, ProblemError } from "./problem";
import type { paths } from "./schema";

const REFRESHED = "espalier-refreshed";
const unsafe = new Set(["POST", "PUT", "PATCH", "DELETE"]);

/**
 * Why somebody signs in again: his session is over, it soon will be, or what he wants to do takes a recent sign-in. Or he
 * has to enrol a second factor before he goes on.
 */
export type Cause = "ended" | "ending" | "too-long-ago" | "not-enrolled";
/** What refusals ask of the user before the call is worth repeating. */
const CAUSES: Record<string, Cause> = {
  SIGN_IN_AGAIN: "too-long-ago",
  SECOND_FACTOR_ENROLMENT_REQUIRED: "not-enrolled",
};
/** True once he has done it, and the call is worth repeating. */
type SignInAgain = (cause: Cause) => Promise<boolean>;
let signInAgain: SignInAgain = () => Promise.resolve(false);

export function onSignInNeeded(handler: SignInAgain): void {
  signInAgain = handler;
}

/** Told when this tab has renewed the session, in milliseconds since 1970; another tab's is in the storage they share. */
let noteRenewal: (at: number) => void = () => undefined;

export function onRenewed(handler: (at: number) => void): void {
  noteRenewal = handler;
}

/** When a tab of this browser renewed the session last, in milliseconds since 1970; 0 when none has. */
export function renewedAt(): number {
  return Number(localStorage.getItem(REFRESHED) ?? 0);
}

/** The value that proves that this page, and no other site, makes the call; the gateway put it into a readable cookie. */
function csrfToken(): string {
  const pair = document.cookie.split("; ").find((cookie) => /^(__Host-)?espalier_csrf=/.test(cookie));
  return pair ? decodeURIComponent(pair.slice(pair.indexOf("=") + 1)) : "";
}

/** Whether this browser has a session at all; it may have ended meanwhile. */
export function hasSession(): boolean {
  return csrfToken() !== "";
}

let refreshing: Promise<Response | null> | undefined;

/**
 * Renews the session for a call that was sent at `sent`. Calls that expire together share one renewal, and so do all
 * tabs of the browser. The answer is null when the session is fresh, and else that of the refusal.
 */
function refresh(sent: number): Promise<Response | null> {
  const renewal = refreshing ?? renewAlone(sent);
  refreshing = renewal;
  return renewal.finally(() => (refreshing = undefined));
}

/** One tab after another. Over plain HTTP browsers have no locks; the gateway then answers those alike that come at once. */
async function renewAlone(sent: number): Promise<Response | null> {
  if (!("locks" in navigator)) return await renew(sent);
  return await navigator.locks.request("espalier-refresh", () => renew(sent));
}

/** Asks for the next pair of tokens, unless another tab has got it for this browser since. */
async function renew(sent: number): Promise<Response | null> {
  const refreshed = renewedAt();
  // A time that is still to come is that of a clock that has been set back since.
  if (refreshed > sent && refreshed <= Date.now()) return null;
  const answer = await fetch("/api/v1/auth/refresh", {
    method: "POST",
    headers: { "content-type": "application/json", "x-csrf-token": csrfToken() },
    body: "{}",
    keepalive: true, // A page that is left in between must not lose the new tokens.
  });
  if (!answer.ok) return answer;
  const now = Date.now();
  localStorage.setItem(REFRESHED, String(now));
  noteRenewal(now);
  return null;
}

/**
 * Renews the session though no call needs it yet: its user wants to keep it, or may do something else from now on.
 * One that is over already is begun again. Throws ProblemError.
 */
export async function keepSession(): Promise<void> {
  const refusal = await refresh(Date.now()).catch((cause: unknown) => {
    throw new ProblemError(problemOf(cause));
  });
  if (!refusal || (refusal.status === 401 && (await signInAgain("ended")))) return;
  throw new ProblemError(problemOf(await refusal.json().catch(() => null), refusal));
}

/**
 * Repeats a call once what it was refused for is mended: an expired session is renewed, and its user asked for what only
 * he can do. Each of them once; a sign-in that fails is an answer, not an expired session.
 */
async function renewingFetch(request: Request): Promise<Response> {
  const mended = new Set<string>();
  for (let call = request; ; ) {
    const again = call.clone();
    const sent = Date.now();
    const answer = await fetch(call);
    const obstacle = await obstacleOf(answer);
    if (!obstacle || mended.has(obstacle)) return answer;
    mended.add(obstacle);
    const refusal = await mend(obstacle, answer, sent);
    if (refusal) return refusal;
    if (unsafe.has(again.method)) again.headers.set("x-csrf-token", csrfToken());
    call = again;
  }
}

/** What keeps a call from being answered that can be mended. */
async function obstacleOf(answer: Response): Promise<Cause | undefined> {
  if (answer.status === 403) return CAUSES[await reasonOf(answer)];
  const isSignIn = new URL(answer.url).pathname.startsWith("/api/v1/auth/");
  return answer.status === 401 && !isSignIn ? "ended" : undefined;
}

/** What the call ends with; null when nothing is in its way any more, and it is to be repeated. */
async function mend(obstacle: Cause, answer: Response, sent: number): Promise<Response | null> {
  if (obstacle === "ended") {
    // Without its cookie the session is over, too; who never had one is not asked.
    const refusal = hasSession() ? await refresh(sent) : answer;
    if (refusal?.status !== 401) return refusal;
  }
  return (await signInAgain(obstacle)) ? null : answer;
}

async function reasonOf(answer: Response): Promise<string> {
  const body = (await answer.clone().json().catch(() => ({}))) as { reason?: string };
  return body.reason ?? "";
}

const session: Middleware = {
  onRequest({ request }) {
    if (unsafe.has(request.method)) request.headers.set("x-csrf-token", csrfToken());
    return request;
  },
};

export const api = createClient<paths>({ baseUrl: location.origin, fetch: renewingFetch });
api.use(session);

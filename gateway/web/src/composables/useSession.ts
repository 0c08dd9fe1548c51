// Who is signed in at this browser: told to all its tabs, and asked to sign in again over the page when a session ends.
import { computed, ref, shallowRef } from "vue";
import { api, type Cause, hasSession, keepSession, onSignInNeeded } from "../api/client";
import { ProblemError } from "../api/problem";
import { answerOf, queryClient } from "../api/queries";
import type { components } from "../api/schema";
import { SESSIONS } from "./useSessions";
import { useStay } from "./useStay";

export type Me = components["schemas"]["auth.v1.Me"];

/** What a tab tells the others. */
type Notice = { kind: "signed-in"; user: string } | { kind: "signed-out" };

const { stays } = useStay();
const me = shallowRef<Me | null>(null);
/** Why the user of an open page has to sign in again, while the page stays as it is; null when he need not. */
const needed = ref<Exclude<Cause, "not-enrolled"> | null>(null);
/** Nothing but enrolling a second factor goes on in this session. */
const mustEnrol = computed(() => me.value?.second_factor_enrolment_required ?? false);
const user = computed(() => me.value?.user ?? null);
const tabs = new BroadcastChannel("espalier-session");
const STALE = 30_000; // milliseconds
let loadedAt = 0;
let loading: Promise<void> | undefined;
let waiting: ((isSignedIn: boolean) => void)[] = [];
/** A form of the page is about to begin a session: nothing else asks for one meanwhile. */
let isBegunHere = false;

/** Asks the platform who this is; throws ProblemError when it does not say. Nobody is an answer, too. */
async function load(): Promise<void> {
  loadedAt = Date.now();
  if (!hasSession()) {
    me.value = null;
    return;
  }
  try {
    const found = await answerOf(api.GET("/api/v1/me"));
    // Who has to enrol may do nothing else, and yet keeps the page that he is on: he goes on with it afterwards.
    const kept = found.second_factor_enrolment_required && found.user?.id === user.value?.id ? me.value : null;
    me.value = { ...found, permissions: kept?.permissions ?? found.permissions };
  } catch (error) {
    if (!(error instanceof ProblemError) || error.problem.status !== 401) throw error;
    me.value = null;
  }
}

/** Loads once, however many pages ask. */
function ensureLoaded(): Promise<void> {
  loading ??= load().catch((error: unknown) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

/** `code` is that of the second factor, for who has one. Throws ProblemError. */
async function login(username: string, password: string, code = ""): Promise<void> {
  const until_closed = !stays.value;
  await answerOf(api.POST("/api/v1/auth/login", { body: { username, password, code, cookie: true, until_closed } }));
  await adopt();
}

/** Takes over a session that this browser has just been given. */
async function adopt(): Promise<void> {
  const before = user.value?.id;
  await load();
  if (before && before !== user.value?.id) queryClient.clear();
  void queryClient.invalidateQueries({ queryKey: SESSIONS });
  resume(true);
  tell({ kind: "signed-in", user: user.value?.id ?? "" });
}

/** Throws ProblemError when the session could not be ended: then it is still there, and nobody is told otherwise. */
async function logout(): Promise<void> {
  try {
    await answerOf(api.POST("/api/v1/auth/logout", { body: {} }));
  } catch (error) {
    if (!(error instanceof ProblemError) || error.problem.status !== 401) throw error;
  }
  forget();
  tell({ kind: "signed-out" });
}

/** Forgets who was here, and all that he has seen. */
function forget(): void {
  me.value = null;
  queryClient.clear();
  resume(false);
}

/** Lets the calls go on that have waited for somebody to sign in again. */
function resume(isSignedIn: boolean): void {
  needed.value = null;
  const calls = waiting;
  waiting = [];
  for (const go of calls) go(isSignedIn);
}

/** Whether a permission is among those of the user; "*" and "training.*" stand for many. */
function may(permission: string | undefined): boolean {
  if (!permission) return true;
  return (me.value?.permissions ?? []).some(
    (held) => held === permission || held === "*" || (held.endsWith(".*") && permission.startsWith(held.slice(0, -1))),
  );
}

function tell(notice: Notice): void {
  tabs.postMessage(notice);
}

/** The calls that waited go on also when it cannot be asked who this is: each says what it meets. */
async function goOn(): Promise<void> {
  await load().catch(() => undefined);
  void queryClient.invalidateQueries({ queryKey: SESSIONS });
  resume(true);
}

/** Goes on after the user has enrolled a second factor: his tokens from before still say that he has none. */
async function enrolled(): Promise<void> {
  // Another call may have begun to renew the session just before, and got what was good then.
  for (let tries = 0; tries < 2; tries += 1) {
    await keepSession();
    await load();
    if (!mustEnrol.value) break;
  }
  resume(true);
  tell({ kind: "signed-in", user: user.value?.id ?? "" });
}

/** Whether a form of the page begins the next session itself, for which calls wait as for the dialog. */
function beginHere(is: boolean): void {
  isBegunHere = is;
  if (is) needed.value = null;
  else if (waiting.length && me.value && !mustEnrol.value) needed.value = "ended";
}

/** Lets the user begin a new session before this one ends. */
function renew(): void {
  needed.value ??= "ending";
}

tabs.onmessage = ({ data }: MessageEvent<Notice>) => {
  if (data.kind === "signed-in" && data.user === user.value?.id) void goOn();
  // Another user: nothing of the first one may stay on the screen.
  else if (data.kind === "signed-in" || user.value) location.reload();
};

// Somebody may have changed what he may do, or ended his session, while the page lay in the background.
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "visible" || !me.value || Date.now() - loadedAt < STALE) return;
  void load().catch(() => undefined);
});

onSignInNeeded(async (cause) => {
  if (!me.value) return false;
  if (cause === "not-enrolled") {
    await load().catch(() => undefined);
    // He has just done it in another tab.
    if (!mustEnrol.value) return me.value !== null;
  } else if (!isBegunHere && needed.value !== "ended") needed.value = cause;
  return new Promise((go) => waiting.push(go));
});

export function useSession() {
  return {
    ...{ me, user, needed, mustEnrol, may, load, ensureLoaded },
    ...{ login, adopt, logout, forget, resume, renew, enrolled, beginHere },
  };
}

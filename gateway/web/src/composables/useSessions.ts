// One's sessions, and when the one of this browser ends.
import { useQuery } from "@tanstack/vue-query";
import { computed, onScopeDispose, ref } from "vue";
import { api, onRenewed, renewedAt } from "../api/client";
import { answerOf } from "../api/queries";
import type { components } from "../api/schema";
import { useNow } from "./useNow";

type Session = Pick<
  components["schemas"]["auth.v1.UserSession"],
  "create_time" | "last_used_time" | "expire_time" | "idle_expire_time"
>;

/** Key of the query, to ask again when a session has begun or ended. */
export const SESSIONS = ["sessions"];

const DAY = 86_400_000;
/** Of a session that lasts days its user is told on the last; of a short one in its last tenth. */
const LAST_PART = 0.1;
const ASKED_EACH = 30 * 60_000;
/** How far the time of `useNow` may be behind, in milliseconds. */
const CLOCK_STEP = 60_000;

/** An end that is near: `isIdle` when it comes for lack of use alone, so that any use puts it off. */
export interface SessionEnd {
  time: string;
  isIdle: boolean;
}

function listSessions() {
  return answerOf(api.GET("/api/v1/me/sessions"));
}

export function useSessions() {
  // Others come and go without this page.
  const { data, error, refetch, isPending } = useQuery({ queryKey: SESSIONS, queryFn: listSessions, staleTime: 0 });
  return { sessions: computed(() => data.value?.sessions ?? []), error, refetch, isPending };
}

/** When this browser's session ends; null while that is far. A page in the background finds out without asking. */
export function useSessionEnd() {
  const now = useNow();
  const renewed = ref(renewedAt());
  const look = (): number => (renewed.value = renewedAt());
  // Tabs share one session: what any of them does with it puts off its end for all.
  onRenewed(look);
  window.addEventListener("storage", look);
  onScopeDispose(() => window.removeEventListener("storage", look));

  const { data } = useQuery({
    queryKey: SESSIONS,
    queryFn: listSessions,
    staleTime: ASKED_EACH,
    refetchInterval: ASKED_EACH,
  });
  return computed(() => {
    const current = data.value?.sessions.find((session) => session.current);
    return current ? endOf(current, { now: now.value, renewed: renewed.value }) : null;
  });
}

/**
 * How a session ends, when that is near. `now`, and when it was renewed last as far as this browser knows, are in
 * milliseconds since 1970; what the platform said of the session may be older than that.
 */
export function endOf(session: Session, { now, renewed }: { now: number; renewed: number }): SessionEnd | null {
  const { create_time, last_used_time, expire_time, idle_expire_time } = session;
  if (!create_time || !last_used_time || !expire_time || !idle_expire_time) return null;
  const last = Date.parse(expire_time);
  if (isNear(last, last - Date.parse(create_time), now)) return { time: expire_time, isIdle: false };
  const unused = Date.parse(idle_expire_time);
  const waits = unused - Date.parse(last_used_time);
  // A time that is still to come is that of a clock that has been set back since.
  const idle = renewed <= now + CLOCK_STEP ? Math.max(unused, renewed + waits) : unused;
  return isNear(idle, waits, now) ? { time: new Date(idle).toISOString(), isIdle: true } : null;
}

function isNear(end: number, whole: number, now: number): boolean {
  return end - now < Math.min(DAY, whole * LAST_PART);
}

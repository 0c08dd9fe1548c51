// One's sessions, and when the one of this browser ends.
import { useQuery } from "@tanstack/vue-query";
import { computed } from "vue";
import { api } from "../api/client";
import { answerOf } from "../api/queries";
import type { components } from "../api/schema";
import { useNow } from "./useNow";

type Session = components["schemas"]["auth.v1.UserSession"];

/** Key of the query, to ask again when a session has begun or ended. */
export const SESSIONS = ["sessions"];

const DAY = 86_400_000;
/** Of a session that lasts days its user is told on the last; of a short one in its last tenth. */
const LAST_PART = 0.1;
const ASKED_EACH = 30 * 60_000;

function listSessions() {
  return answerOf(api.GET("/api/v1/me/sessions"));
}

export function useSessions() {
  // Others come and go without this page.
  const { data, error, refetch, isPending } = useQuery({ queryKey: SESSIONS, queryFn: listSessions, staleTime: 0 });
  return { sessions: computed(() => data.value?.sessions ?? []), error, refetch, isPending };
}

/** When this browser's session ends, however busy it is; null while that is far. */
export function useSessionEnd() {
  const now = useNow();
  const { data } = useQuery({
    queryKey: SESSIONS,
    queryFn: listSessions,
    staleTime: ASKED_EACH,
    refetchInterval: ASKED_EACH,
  });
  return computed(() => {
    const current = data.value?.sessions.find((session) => session.current);
    return current && isNearItsEnd(current, now.value) ? (current.expire_time ?? null) : null;
  });
}

/** `now` in milliseconds since 1970. */
export function isNearItsEnd({ create_time, expire_time }: Session, now: number): boolean {
  if (!create_time || !expire_time) return false;
  const [begin, end] = [Date.parse(create_time), Date.parse(expire_time)];
  return end - now < Math.min(DAY, (end - begin) * LAST_PART);
}

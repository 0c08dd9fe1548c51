// Who is signed in.
import { ref } from "vue";
import type { components } from "../api/schema";
import { api, type Problem, problemOf } from "../api/client";

export type Me = components["schemas"]["auth.v1.Me"];

const me = ref<Me | null>(null);
const isKnown = ref(false);
const problem = ref<Problem | null>(null);

async function load(): Promise<void> {
  try {
    const { data } = await api.GET("/api/v1/me");
    me.value = data ?? null;
  } catch {
    me.value = null;
  } finally {
    isKnown.value = true;
  }
}

async function attempt(call: () => Promise<{ error?: unknown; response: Response }>): Promise<boolean> {
  problem.value = null;
  try {
    const { error, response } = await call();
    if (!response.ok) problem.value = problemOf(error, response);
  } catch (error) {
    problem.value = problemOf(error);
  }
  return problem.value === null;
}

async function login(username: string, password: string): Promise<void> {
  const body = { username, password, cookie: true };
  if (await attempt(() => api.POST("/api/v1/auth/login", { body }))) await load();
}

async function logout(): Promise<void> {
  await attempt(() => api.POST("/api/v1/auth/logout", { body: {} }));
  me.value = null;
}

/** Changing the password ends every session, so the user is signed in again with the new one. */
async function changePassword(current: string, chosen: string): Promise<void> {
  const username = me.value?.user?.username ?? "";
  const body = { current_password: current, new_password: chosen };
  if (await attempt(() => api.POST("/api/v1/me/password", { body }))) await login(username, chosen);
}

export function useSession() {
  return { me, isKnown, problem, load, login, logout, changePassword };
}

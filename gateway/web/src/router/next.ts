// The page that was asked for, kept in the address of the sign-in.
import type { RouteLocationNormalizedLoaded } from "vue-router";

/** The page to show after a sign-in: one of this console, never an address of another site. */
export function nextOf(route: RouteLocationNormalizedLoaded): string {
  return localPath(route.query.next);
}

/** `path` when it is one of this console, and else the first page. */
export function localPath(path: unknown): string {
  return typeof path === "string" && /^\/(?![/\\])/.test(path) ? path : "/";
}

// Which page an address shows, and to whom: the page that was asked for is kept over the sign-in.
import { createRouter, createWebHistory, type RouteLocation, type RouteLocationRaw } from "vue-router";
import { useSession } from "../composables/useSession";
import { localPath } from "./next";
import { routes } from "./routes";

const LOGIN = "/login";
const CHANGE_PASSWORD = "/change-password";
const ENROL = "/enrol";

export const router = createRouter({
  history: createWebHistory(),
  routes,
  scrollBehavior: (_to, _from, saved) => saved ?? { top: 0 },
});

function withNext(path: string, to: Pick<RouteLocation, "fullPath">): RouteLocationRaw {
  return to.fullPath === "/" ? path : { path, query: { next: to.fullPath } };
}

router.beforeEach(async (to) => {
  const { user, mustEnrol, ensureLoaded } = useSession();
  // What cannot be loaded now is told by the page itself, whose calls fail likewise.
  await ensureLoaded().catch(() => undefined);
  // Who has to sign in again at a provider does so here, while he is signed in.
  if (user.value && to.path === LOGIN && !to.query.again) return localPath(to.query.next);
  if (to.meta.isOpen) return true;
  if (!user.value) return withNext(LOGIN, to);
  // This first: nothing else goes on without it, not even another password.
  if (mustEnrol.value) return to.path === ENROL ? true : withNext(ENROL, to);
  if (to.path === ENROL) return localPath(to.query.next);
  const mustChange = user.value.password_change_required;
  if (mustChange && to.path !== CHANGE_PASSWORD) return withNext(CHANGE_PASSWORD, to);
  return to.path === "/" ? firstPage() : true;
});

function firstPage(): string {
  const { may } = useSession();
  return routes.find((route) => route.meta?.section && may(route.meta.permission))?.path ?? "/profile";
}

router.afterEach((to) => {
  document.title = `${to.meta.title} · Espalier`;
});

// After an update of the platform the files of before are gone: the page is loaded anew, once, from the new ones.
router.onError((error: unknown, to) => {
  const reloaded = `espalier-reloaded:${to.fullPath}`;
  if (!/dynamically imported module|module script/i.test(String(error)) || sessionStorage.getItem(reloaded)) return;
  sessionStorage.setItem(reloaded, "yes");
  location.assign(to.fullPath);
});

// Signing in and out of the platform, and everybody's own account.
import type { RouteRecordRaw } from "vue-router";

export const accountRoutes: RouteRecordRaw[] = [
  { path: "/login", component: () => import("./LoginPage.vue"), meta: { title: "Sign in", isOpen: true } },
  {
    path: "/login/callback",
    component: () => import("./CallbackPage.vue"),
    meta: { title: "Signing in", isOpen: true },
  },
  {
    path: "/change-password",
    component: () => import("./ChangePasswordPage.vue"),
    meta: { title: "Choose a password" },
  },
];

// Signing in and out of the platform, and everybody's own account.
import type { RouteRecordRaw } from "vue-router";

export const accountRoutes: RouteRecordRaw[] = [
  { path: "/login", component: () => import("./LoginPage.vue"), meta: { title: "Sign in", isOpen: true } },
  {
    path: "/login/callback",
    component: () => import("./CallbackPage.vue"),
    meta: { title: "Signing in", isOpen: true },
  },
  { path: "/register", component: () => import("./RegisterPage.vue"), meta: { title: "Register", isOpen: true } },
  {
    path: "/forgot-password",
    component: () => import("./ForgotPasswordPage.vue"),
    meta: { title: "Forgotten your password?", isOpen: true },
  },
  {
    path: "/reset-password",
    component: () => import("./ResetPasswordPage.vue"),
    meta: { title: "Choose a new password", isOpen: true },
  },
  {
    path: "/change-password",
    component: () => import("./ChangePasswordPage.vue"),
    meta: { title: "Choose a password", isBare: true },
  },
  {
    path: "/enrol",
    component: () => import("./SecondFactorPage.vue"),
    meta: { title: "Set up a second factor", isBare: true },
  },
  {
    path: "/profile",
    component: () => import("./profile/ProfilePage.vue"),
    meta: { title: "Your account" },
    children: [
      { path: "", component: () => import("./profile/ProfileTab.vue"), meta: { title: "Profile" } },
      { path: "password", component: () => import("./profile/PasswordTab.vue"), meta: { title: "Password" } },
      {
        path: "second-factor",
        component: () => import("./profile/SecondFactorTab.vue"),
        meta: { title: "Second factor" },
      },
      { path: "sessions", component: () => import("./profile/SessionsTab.vue"), meta: { title: "Sessions" } },
      { path: "api-keys", component: () => import("./profile/ApiKeysTab.vue"), meta: { title: "API keys" } },
      { path: "usage", component: () => import("./profile/UsageTab.vue"), meta: { title: "Usage" } },
    ],
  },
];

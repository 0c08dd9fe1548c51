// Every page of the console, each loaded when it is first opened.
import { Histogram } from "@element-plus/icons-vue";
import type { RouteRecordRaw } from "vue-router";
import { accountRoutes } from "../pages/account/routes";
import { adminRoutes } from "../pages/admin/routes";

export const routes: RouteRecordRaw[] = [
  // The guard leads on from here, to the first page that the user may see.
  { path: "/", component: () => import("../pages/NotFoundPage.vue"), meta: { title: "Espalier", isBare: true } },
  {
    path: "/runs",
    component: () => import("../pages/runs/RunsPage.vue"),
    meta: { title: "Training runs", permission: "training.runs.list", section: "work", icon: Histogram },
  },
  ...accountRoutes,
  ...adminRoutes,
  { path: "/:rest(.*)*", component: () => import("../pages/NotFoundPage.vue"), meta: { title: "Page not found" } },
];

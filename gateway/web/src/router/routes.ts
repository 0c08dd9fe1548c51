// Every page of the console, each loaded when it is first opened.
import { Histogram } from "@element-plus/icons-vue";
import type { RouteRecordRaw } from "vue-router";
import { accountRoutes } from "../pages/account/routes";
import { adminRoutes } from "../pages/admin/routes";

export const routes: RouteRecordRaw[] = [
  { path: "/", redirect: "/runs" },
  {
    path: "/runs",
    component: () => import("../pages/runs/RunsPage.vue"),
    meta: { title: "Training runs", permission: "training.runs.list", section: "work", icon: Histogram },
  },
  ...accountRoutes,
  ...adminRoutes,
  { path: "/:rest(.*)*", component: () => import("../pages/NotFoundPage.vue"), meta: { title: "Page not found" } },
];

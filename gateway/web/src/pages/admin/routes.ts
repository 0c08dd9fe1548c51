// The pages of who administers the platform. A page names the permission without which it is of no use.
import type { RouteRecordRaw } from "vue-router";

export const adminRoutes: RouteRecordRaw[] = [];

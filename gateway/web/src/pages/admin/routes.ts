// The pages of who administers the platform. A page names the permission without which it is of no use.
import {
  DataLine,
  Key,
  Message,
  Notification,
  Odometer,
  Postcard,
  Setting,
  Tickets,
  User,
} from "@element-plus/icons-vue";
import type { RouteRecordRaw } from "vue-router";

export const adminRoutes: RouteRecordRaw[] = [
  {
    path: "/admin/users",
    component: () => import("./UsersPage.vue"),
    meta: { title: "Users", permission: "auth.users.list", section: "administration", icon: User },
  },
  {
    path: "/admin/users/:id",
    component: () => import("./UserPage.vue"),
    meta: { title: "User", permission: "auth.users.get" },
  },
  {
    path: "/admin/groups",
    component: () => import("./GroupsPage.vue"),
    meta: { title: "Groups", permission: "auth.groups.list", section: "administration", icon: Postcard },
  },
  {
    path: "/admin/roles",
    component: () => import("./RolesPage.vue"),
    meta: { title: "Roles", permission: "auth.roles.list", section: "administration", icon: Key },
  },
  {
    path: "/admin/invitations",
    component: () => import("./InvitationsPage.vue"),
    meta: { title: "Invitations", permission: "auth.invitations.list", section: "administration", icon: Message },
  },
  {
    path: "/admin/usage",
    component: () => import("./UsagePage.vue"),
    meta: { title: "Usage", permission: "auth.statistics.get", section: "administration", icon: DataLine },
  },
  {
    path: "/admin/quotas",
    component: () => import("./QuotasPage.vue"),
    meta: { title: "Limits", permission: "auth.quotas.list", section: "administration", icon: Odometer },
  },
  {
    path: "/admin/audit",
    component: () => import("./AuditPage.vue"),
    meta: { title: "Audit log", permission: "auth.audit.list", section: "administration", icon: Tickets },
  },
  {
    path: "/admin/settings",
    component: () => import("./SettingsPage.vue"),
    meta: { title: "Settings", permission: "auth.settings.list", section: "administration", icon: Setting },
  },
  {
    path: "/admin/announcements",
    component: () => import("./AnnouncementsPage.vue"),
    meta: { title: "Announcements", permission: "auth.banners.list", section: "administration", icon: Notification },
  },
];

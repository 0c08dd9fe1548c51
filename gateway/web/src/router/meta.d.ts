import type { Component } from "vue";

declare module "vue-router" {
  interface RouteMeta {
    /** Name of the page: its heading, its link on the left and, before "Espalier", the title of the window. */
    title: string;
    /** Shown also to who is not signed in, without header and navigation. */
    isOpen?: boolean;
    /** Shown without header and navigation. */
    isBare?: boolean;
    /** What one must be allowed to do; without it the page is not linked, and says so when it is opened. */
    permission?: string;
    /** Where on the left it is linked; not at all when unset. */
    section?: "work" | "administration";
    icon?: Component;
  }
}

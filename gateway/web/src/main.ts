import { VueQueryPlugin } from "@tanstack/vue-query";
import { createApp } from "vue";
import App from "./App.vue";
import { queryClient } from "./api/queries";
import { watchPresence } from "./composables/usePresence";
import { router } from "./router";
import "element-plus/theme-chalk/base.css";
import "./styles/tokens.css";
import "./styles/element-plus.css";
import "./styles/base.css";

watchPresence();
createApp(App).use(router).use(VueQueryPlugin, { queryClient }).mount("#app");

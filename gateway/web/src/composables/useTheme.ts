// Light, dark, or as the system has it; kept by the browser.
import { ref, watchEffect } from "vue";

export type Theme = "auto" | "light" | "dark";

const KEPT = "espalier-theme";
const kept = localStorage.getItem(KEPT);
const theme = ref<Theme>(kept === "light" || kept === "dark" ? kept : "auto");

watchEffect(() => {
  document.documentElement.dataset.theme = theme.value;
  localStorage.setItem(KEPT, theme.value);
});

export function useTheme() {
  return { theme };
}

// What everybody is told: loaded with the page, and again now and then while it is open.
import { onMounted, onUnmounted, ref } from "vue";
import { api } from "../api/client";
import type { components } from "../api/schema";

export type Banner = components["schemas"]["auth.v1.Banner"];

const PAUSE = 60_000;

export function useBanners() {
  const banners = ref<Banner[]>([]);
  let timer: number | undefined;

  async function load(): Promise<void> {
    try {
      const { data } = await api.GET("/api/v1/banners:current");
      if (data) banners.value = data.banners ?? [];
    } catch {
      // The next round asks again; what was told stays.
    }
  }

  onMounted(() => {
    void load();
    timer = window.setInterval(() => void load(), PAUSE);
  });
  onUnmounted(() => window.clearInterval(timer));
  return { banners };
}

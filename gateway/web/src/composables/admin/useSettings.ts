// Settings of the platform with their origin, and what everybody is told.
import { useQuery } from "@tanstack/vue-query";
import { computed } from "vue";
import { api } from "../../api/client";
import { answerOf } from "../../api/queries";
import type { components } from "../../api/schema";
import { useSession } from "../useSession";

export type Setting = components["schemas"]["auth.v1.Setting"];
export type Banner = components["schemas"]["auth.v1.Banner"];
export type BannerDraft = Pick<Banner, "text" | "kind" | "start_time" | "end_time">;

export const SETTINGS = "admin-settings";
export const BANNERS = "admin-banners";

export function useSettings() {
  const { may } = useSession();
  const query = useQuery({
    queryKey: [SETTINGS],
    queryFn: async () => (await answerOf(api.GET("/api/v1/settings"))).settings,
    enabled: computed(() => may("auth.settings.list")),
  });
  const settings = computed(() => query.data.value ?? []);
  return { settings, error: query.error, isLoading: query.isLoading, reload: () => query.refetch() };
}

/** Sets the value of a setting as it was read; refused with 412 when somebody else changed it since. */
export function updateSetting({ name, etag }: Setting, value: string): Promise<Setting> {
  return answerOf(
    api.PATCH("/api/v1/settings/{setting.name}", {
      params: { path: { "setting.name": name } },
      body: { name, value, etag },
    }),
  );
}

export function resetSetting(name: string): Promise<Setting> {
  return answerOf(api.POST("/api/v1/settings/{name}:reset", { params: { path: { name } }, body: {} }));
}

export function useAllBanners() {
  const query = useQuery({
    queryKey: [BANNERS],
    queryFn: async () => (await answerOf(api.GET("/api/v1/banners"))).banners,
  });
  const banners = computed(() => query.data.value ?? []);
  return { banners, error: query.error, isLoading: query.isLoading, reload: () => query.refetch() };
}

export function createBanner(banner: BannerDraft): Promise<Banner> {
  return answerOf(api.POST("/api/v1/banners", { body: banner }));
}

export function deleteBanner(id: string): Promise<unknown> {
  return answerOf(api.DELETE("/api/v1/banners/{banner_id}", { params: { path: { banner_id: id } } }));
}

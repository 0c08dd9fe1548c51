// Roles, the permissions that exist, and who has what.
import { useQuery } from "@tanstack/vue-query";
import { computed } from "vue";
import { api } from "../../api/client";
import { answerOf } from "../../api/queries";
import type { components } from "../../api/schema";
import { useSession } from "../useSession";

export type Role = components["schemas"]["auth.v1.Role"];
export type Permission = components["schemas"]["auth.v1.Permission"];
export type RoleDraft = Pick<Role, "name" | "description" | "permissions" | "scope">;

export const ROLES = "admin-roles";
export const SCOPES: Record<string, string> = {
  own: "Own data",
  group: "Data of one's groups",
  all: "Everybody's data",
};

export function useRoles() {
  const { may } = useSession();
  const query = useQuery({
    queryKey: [ROLES],
    queryFn: async () => (await answerOf(api.GET("/api/v1/roles"))).roles,
    enabled: computed(() => may("auth.roles.list")),
  });
  const roles = computed(() => query.data.value ?? []);
  return {
    roles,
    isKnown: computed(() => query.data.value !== undefined),
    error: query.error,
    isLoading: query.isLoading,
    isFetching: query.isFetching,
    reload: () => query.refetch(),
  };
}

export function usePermissions() {
  const { may } = useSession();
  const query = useQuery({
    queryKey: ["admin-permissions"],
    queryFn: async () => (await answerOf(api.GET("/api/v1/permissions"))).permissions,
    enabled: computed(() => may("auth.roles.list")),
    staleTime: Number.POSITIVE_INFINITY,
  });
  const permissions = computed(() => query.data.value ?? []);
  const isKnown = computed(() => query.data.value !== undefined);
  return { permissions, isKnown, error: query.error, reload: () => query.refetch() };
}

export function createRole(role: RoleDraft): Promise<Role> {
  return answerOf(api.POST("/api/v1/roles", { body: role }));
}

/** Changes the role as it was read; refused with 412 when somebody else changed it since. */
export function updateRole(role: RoleDraft, etag: string): Promise<Role> {
  return answerOf(
    api.PATCH("/api/v1/roles/{role.name}", {
      params: { path: { "role.name": role.name }, query: { update_mask: "description,permissions,scope" } },
      body: { ...role, etag },
    }),
  );
}

export function deleteRole(name: string): Promise<unknown> {
  return answerOf(api.DELETE("/api/v1/roles/{name}", { params: { path: { name } } }));
}

// Groups of users, with their members and roles.
import { useQuery } from "@tanstack/vue-query";
import { computed } from "vue";
import { api } from "../../api/client";
import { answerOf } from "../../api/queries";
import type { components } from "../../api/schema";
import { useSession } from "../useSession";
import type { Page, PageQuery } from "./useKeysetList";

export type Group = components["schemas"]["auth.v1.Group"];
export type GroupDraft = Pick<Group, "name" | "description" | "roles" | "member_ids">;

export const GROUPS = "admin-groups";
/** Groups in one answer, at most. */
const MOST = 1000;

export async function listGroups(query: PageQuery): Promise<Page<Group>> {
  const page = await answerOf(api.GET("/api/v1/groups", { params: { query } }));
  return { items: page.groups, next: page.next_page_token };
}

async function listAllGroups(): Promise<Group[]> {
  const found: Group[] = [];
  let next = "";
  do {
    const page = await listGroups({ page_size: MOST, ...(next ? { page_token: next } : {}) });
    found.push(...page.items);
    next = page.next;
  } while (next);
  return found;
}

export function getGroup(id: string): Promise<Group> {
  return answerOf(api.GET("/api/v1/groups/{group_id}", { params: { path: { group_id: id } } }));
}

/** All groups, for choices and to call them by name. */
export function useGroups() {
  const { may } = useSession();
  const query = useQuery({
    queryKey: [GROUPS, "all"],
    queryFn: listAllGroups,
    enabled: computed(() => may("auth.groups.list")),
    staleTime: 30_000,
  });
  const groups = computed(() => query.data.value ?? []);
  const names = computed(() => new Map(groups.value.map((group) => [group.id, group.name])));
  const nameOf = (id: string): string => names.value.get(id) ?? id.slice(0, 8);
  const isKnown = computed(() => query.data.value !== undefined);
  return { groups, nameOf, isKnown, isLoading: query.isLoading, error: query.error, reload: () => query.refetch() };
}

export function createGroup(group: GroupDraft): Promise<Group> {
  return answerOf(api.POST("/api/v1/groups", { body: group }));
}

/** Changes the group as it was read; refused with 412 when somebody else changed it since. */
export function updateGroup(group: Group, changes: Partial<GroupDraft>): Promise<Group> {
  return answerOf(
    api.PATCH("/api/v1/groups/{group.id}", {
      params: { path: { "group.id": group.id }, query: { update_mask: Object.keys(changes).join(",") } },
      body: { name: group.name, etag: group.etag, ...changes },
    }),
  );
}

export function deleteGroup(id: string): Promise<unknown> {
  return answerOf(api.DELETE("/api/v1/groups/{group_id}", { params: { path: { group_id: id } } }));
}

/** Puts a user into exactly these groups; each group is read anew, so that nobody else's change of it is lost. */
export async function setGroupsOf(userId: string, before: string[], wanted: string[]): Promise<void> {
  const changed = [...before.filter((id) => !wanted.includes(id)), ...wanted.filter((id) => !before.includes(id))];
  for (const id of changed) {
    const group = await getGroup(id);
    const others = group.member_ids.filter((member) => member !== userId);
    await updateGroup(group, { member_ids: wanted.includes(id) ? [...others, userId] : others });
  }
}

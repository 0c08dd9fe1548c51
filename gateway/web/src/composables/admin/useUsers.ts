// Users: reading, changing, and the links and passwords that are shown once.
import { useQuery } from "@tanstack/vue-query";
import { computed, type MaybeRefOrGetter, toValue } from "vue";
import { api } from "../../api/client";
import { answerOf } from "../../api/queries";
import type { components, operations } from "../../api/schema";
import { useSession } from "../useSession";
import type { Page } from "./useKeysetList";

export type User = components["schemas"]["auth.v1.User"];
export type PasswordReset = components["schemas"]["auth.v1.PasswordReset"];
export type Explanation = components["schemas"]["auth.v1.PermissionExplanation"];
type ListQuery = NonNullable<operations["UserService_ListUsers"]["parameters"]["query"]>;

export const USERS = "admin-users";
const NAME_KEPT = 5 * 60_000;

export interface NewUser {
  username: string;
  display_name: string;
  email: string;
  roles: string[];
}

export async function listUsers(query: ListQuery): Promise<Page<User>> {
  const page = await answerOf(api.GET("/api/v1/users", { params: { query } }));
  return { items: page.users, next: page.next_page_token };
}

export function getUser(id: string): Promise<User> {
  return answerOf(api.GET("/api/v1/users/{user_id}", { params: { path: { user_id: id } } }));
}

export function createUser(user: NewUser, password: string): Promise<User> {
  return answerOf(api.POST("/api/v1/users", { body: { user, password } }));
}

/** Changes these fields of the user as he was read; refused with 412 when somebody else changed him since. */
export function updateUser(
  user: User,
  changes: Partial<Pick<User, "display_name" | "email" | "roles" | "disabled">>,
): Promise<User> {
  return answerOf(
    api.PATCH("/api/v1/users/{user.id}", {
      params: { path: { "user.id": user.id }, query: { update_mask: Object.keys(changes).join(",") } },
      body: { username: user.username, etag: user.etag, ...changes },
    }),
  );
}

export function makePasswordLink(userId: string): Promise<PasswordReset> {
  return answerOf(
    api.POST("/api/v1/users/{user_id}:resetPassword", { params: { path: { user_id: userId } }, body: {} }),
  );
}

/** For who lost it; his sessions end, and his password alone signs in until he sets up another. */
export async function removeSecondFactor(userId: string): Promise<void> {
  const path = { user_id: userId };
  await answerOf(api.POST("/api/v1/users/{user_id}:removeSecondFactor", { params: { path }, body: {} }));
}

export async function endSessions(userId: string): Promise<number> {
  const path = { user_id: userId };
  const answer = await answerOf(api.POST("/api/v1/users/{user_id}:endSessions", { params: { path }, body: {} }));
  return answer.ended;
}

export async function explainPermissions(userId: string): Promise<Explanation[]> {
  const path = { user_id: userId };
  return (await answerOf(api.GET("/api/v1/users/{user_id}/permissions", { params: { path } }))).permissions;
}

/** A first password that nobody needs to know: the user chooses his own with a link. */
export function unknownPassword(): string {
  return btoa(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(24))));
}

/** The name of a user, as far as one may look him up; his id until then. */
export function useUserName(id: MaybeRefOrGetter<string>) {
  const { may, user: me } = useSession();
  const wanted = computed(() => toValue(id));
  const isMe = computed(() => wanted.value === me.value?.id);
  const { data } = useQuery({
    queryKey: computed(() => [USERS, "name", wanted.value]),
    queryFn: () => getUser(wanted.value),
    enabled: computed(() => wanted.value !== "" && !isMe.value && may("auth.users.get")),
    staleTime: NAME_KEPT,
    retry: false,
  });
  return computed(() => (isMe.value ? me.value?.username : data.value?.username) ?? wanted.value.slice(0, 8));
}

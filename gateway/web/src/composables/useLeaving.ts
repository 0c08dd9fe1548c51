// Signing out, by whatever button.
import { useRouter } from "vue-router";
import { problemOf } from "../api/problem";
import { warn } from "./useNotice";
import { useSession } from "./useSession";

export function useLeaving() {
  const { logout } = useSession();
  const router = useRouter();

  /** To the sign-in page; when the session could not be ended, it says so and stays. */
  async function leave(): Promise<void> {
    const isOut = await logout().then(
      () => true,
      (error: unknown) => warn(`You are still signed in: ${problemOf(error).detail}`),
    );
    if (isOut) await router.replace("/login");
  }

  return { leave };
}

// Signing in at an identity provider: there, and back at /login/callback.
import { useQuery } from "@tanstack/vue-query";
import { computed } from "vue";
import { api } from "../api/client";
import { answerOf } from "../api/queries";
import { ProblemError } from "../api/problem";
import type { components } from "../api/schema";
import { useStay } from "./useStay";

export type IdentityProvider = components["schemas"]["auth.v1.IdentityProvider"];

/** What the browser keeps while the user is away: the binding proves that it is the browser that began. */
interface Pending {
  provider: string;
  binding: string;
  /** Adds the account at the provider to that of who is signed in. */
  isLink: boolean;
  /** Makes an account of his own, whoever else goes by the same address or name. */
  isSeparate: boolean;
  /** The page to show at the end. */
  next: string;
}

const PENDING = "espalier-oidc";

export function useProviders() {
  const { data, isSuccess } = useQuery({
    queryKey: ["identity-providers"],
    queryFn: () => answerOf(api.GET("/api/v1/auth/providers")),
    staleTime: Infinity,
  });
  return { providers: computed(() => data.value?.providers ?? []), isSuccess };
}

/** Sends the browser to the provider. Throws ProblemError when it cannot begin. */
export async function beginSignOn(
  provider: string,
  { isLink = false, isSeparate = false, next = "/" } = {},
): Promise<void> {
  const params = { path: { provider } };
  const begun = await answerOf(api.POST("/api/v1/auth/oidc/{provider}:start", { params, body: {} }));
  const pending: Pending = { provider, binding: begun.binding, isLink, isSeparate, next };
  sessionStorage.setItem(PENDING, JSON.stringify(pending));
  location.assign(begun.authorization_url);
}

function takePending(): Pending {
  const kept = sessionStorage.getItem(PENDING);
  sessionStorage.removeItem(PENDING);
  if (kept) return JSON.parse(kept) as Pending;
  const detail = "This sign-in was not begun in this window, or it has ended already; begin it again.";
  throw new ProblemError({ status: 0, title: "The sign-in did not work", detail });
}

/** The end of a sign-in: how it began, and what the platform found against it, if anything. */
export interface SignOn {
  pending: Pending;
  refusal: ProblemError | null;
}

/** Ends a sign-in with what the provider put into the address. Throws ProblemError when none was begun here. */
export async function finishSignOn(query: URLSearchParams): Promise<SignOn> {
  const pending = takePending();
  const body = {
    code: query.get("code") ?? "",
    state: query.get("state") ?? "",
    issuer: query.get("iss") ?? "",
    error: query.get("error") ?? "",
    error_description: query.get("error_description") ?? "",
    binding: pending.binding,
  };
  const params = { path: { provider: pending.provider } };
  const signIn = { ...body, cookie: true, until_closed: !useStay().stays.value, separate_account: pending.isSeparate };
  try {
    if (pending.isLink) await answerOf(api.POST("/api/v1/auth/oidc/{provider}:link", { params, body }));
    else await answerOf(api.POST("/api/v1/auth/oidc/{provider}:finish", { params, body: signIn }));
    return { pending, refusal: null };
  } catch (cause) {
    if (!(cause instanceof ProblemError)) throw cause;
    return { pending, refusal: cause };
  }
}

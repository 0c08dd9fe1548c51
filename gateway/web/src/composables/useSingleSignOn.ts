// Signing in at an identity provider: there, and back at /login/callback.
import { ref } from "vue";
import { api, type Problem, problemOf } from "../api/client";
import type { components } from "../api/schema";

export type IdentityProvider = components["schemas"]["auth.v1.IdentityProvider"];

const CALLBACK = "/login/callback";
const PENDING = "espalier-oidc";

/** What the browser keeps while the user is away: the binding proves that it is the browser that began. */
interface Pending {
  provider: string;
  binding: string;
  isLink: boolean;
}

const providers = ref<IdentityProvider[]>([]);
const problem = ref<Problem | null>(null);
const notice = ref("");
/** The provider whose account belongs to somebody here already; it can be linked once he is signed in. */
const linkable = ref<IdentityProvider | null>(null);

async function loadProviders(): Promise<void> {
  try {
    const { data } = await api.GET("/api/v1/auth/providers");
    providers.value = data?.providers ?? [];
  } catch {
    providers.value = []; // The password form says whether the platform answers at all.
  }
}

/** Sends the browser to the provider; `isLink` adds its account to that of who is signed in. */
async function begin(provider: string, isLink = false): Promise<void> {
  problem.value = null;
  try {
    const { data, error, response } = await api.POST("/api/v1/auth/oidc/{provider}:start", {
      params: { path: { provider } },
      body: {},
    });
    if (!data?.authorization_url) {
      problem.value = problemOf(error, response);
      return;
    }
    const pending: Pending = { provider, binding: data.binding ?? "", isLink };
    sessionStorage.setItem(PENDING, JSON.stringify(pending));
    location.assign(data.authorization_url);
  } catch (error) {
    problem.value = problemOf(error);
  }
}

function takePending(): Pending | null {
  const kept = sessionStorage.getItem(PENDING);
  sessionStorage.removeItem(PENDING);
  return kept ? (JSON.parse(kept) as Pending) : null;
}

/** Ends a sign-in when the page was opened by a provider. Call it before anything else of the page. */
async function finish(): Promise<void> {
  if (location.pathname !== CALLBACK) return;
  const query = new URLSearchParams(location.search);
  const pending = takePending();
  // The code must not stay in the address bar, nor in the history.
  history.replaceState(null, "", "/");
  if (!pending) {
    const detail = "This sign-in was not begun in this window; begin it again.";
    problem.value = { status: 0, title: "The sign-in did not work", detail };
    return;
  }
  const answer = {
    code: query.get("code") ?? "",
    state: query.get("state") ?? "",
    issuer: query.get("iss") ?? "",
    error: query.get("error") ?? "",
    error_description: query.get("error_description") ?? "",
    binding: pending.binding,
  };
  const params = { path: { provider: pending.provider } };
  try {
    // Renews a session that expired while the user was away.
    if (pending.isLink) await api.GET("/api/v1/me");
    const { error, response } = pending.isLink
      ? await api.POST("/api/v1/auth/oidc/{provider}:link", { params, body: answer })
      : await api.POST("/api/v1/auth/oidc/{provider}:finish", { params, body: { ...answer, cookie: true } });
    if (!response.ok) await refuse(pending, problemOf(error, response));
    else if (pending.isLink) notice.value = "Your accounts are linked: from now on you can sign in with either.";
  } catch (error) {
    problem.value = problemOf(error);
  }
}

async function refuse(pending: Pending, found: Problem): Promise<void> {
  problem.value = found;
  if (found.reason !== "ACCOUNT_EXISTS") return;
  await loadProviders();
  linkable.value = providers.value.find((each) => each.name === pending.provider) ?? null;
}

export function useSingleSignOn() {
  return { providers, problem, notice, linkable, loadProviders, begin, finish };
}

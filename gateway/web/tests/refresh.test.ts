import { cookies } from "./browser";
import { beforeEach, expect, test, vi } from "vitest";

type Client = typeof import("../src/api/client");

/** The platform: calls are refused until the session has been renewed, which it does `renewals` times. */
const platform = { isFresh: false, renewals: 0, canRenew: true, mustEnrol: false };

async function answer(request: string | Request): Promise<Response> {
  const url = typeof request === "string" ? request : request.url;
  await new Promise((go) => setTimeout(go, 5));
  if (url.endsWith("/auth/refresh")) {
    platform.renewals += 1;
    platform.isFresh = platform.canRenew;
    return reply(url, platform.canRenew ? 200 : 401);
  }
  if (platform.isFresh && platform.mustEnrol) return reply(url, 403, "SECOND_FACTOR_ENROLMENT_REQUIRED");
  return reply(url, platform.isFresh ? 200 : 401);
}

function reply(url: string, status: number, reason = ""): Response {
  const made = new Response(JSON.stringify({ reason }), { status, headers: { "content-type": "application/json" } });
  return Object.defineProperty(made, "url", { value: new URL(url, "http://console.test").href });
}

/** The client of a tab of its own: tabs share the browser's storage and its locks. */
async function tab(): Promise<Client> {
  vi.resetModules();
  return await import("../src/api/client");
}

const ask = async ({ api }: Client): Promise<number> => (await api.GET("/api/v1/me/sessions")).response.status;

beforeEach(() => {
  Object.assign(platform, { isFresh: false, renewals: 0, canRenew: true, mustEnrol: false });
  cookies.text = "espalier_csrf=proof";
  localStorage.clear();
  vi.stubGlobal("fetch", vi.fn(answer));
});

test("calls of several tabs that expire together renew the session once", async () => {
  const tabs = [await tab(), await tab(), await tab()];
  const statuses = await Promise.all(tabs.flatMap((each) => [ask(each), ask(each), ask(each)]));
  expect(new Set(statuses)).toEqual(new Set([200]));
  expect(platform.renewals).toBe(1);
});

test("who can renew no more is asked to sign in, and his call goes on", async () => {
  const client = await tab();
  platform.canRenew = false;
  client.onSignInNeeded((cause) => {
    platform.isFresh = cause === "ended";
    return Promise.resolve(true);
  });
  expect(await ask(client)).toBe(200);
  // Also when the browser has dropped the session's cookies itself.
  platform.isFresh = false;
  cookies.text = "";
  expect(await ask(client)).toBe(200);
  expect(platform.renewals).toBe(1);
});

test("a call that meets one obstacle after another goes on when all are mended", async () => {
  const client = await tab();
  const asked: string[] = [];
  client.onSignInNeeded((cause) => {
    asked.push(cause);
    platform.mustEnrol = false;
    return Promise.resolve(true);
  });
  platform.mustEnrol = true;
  expect(await ask(client)).toBe(200);
  expect([platform.renewals, asked]).toEqual([1, ["not-enrolled"]]);
  // What is met again although it was mended is told.
  platform.isFresh = platform.mustEnrol = true;
  client.onSignInNeeded(() => Promise.resolve(true));
  expect(await ask(client)).toBe(403);
});

test("a clock that was set back keeps nobody from renewing", async () => {
  const client = await tab();
  localStorage.setItem("espalier-refreshed", String(Date.now() + 3_600_000));
  expect(await ask(client)).toBe(200);
});

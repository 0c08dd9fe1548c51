import { createApp, nextTick } from "vue";
import { beforeEach, expect, test, vi } from "vitest";
import { createMemoryHistory, createRouter, type Router } from "vue-router";
import { useUrlFilters } from "../src/composables/admin/useUrlFilters";

const PATIENT = { timeout: 30_000 }; // milliseconds
let router: Router;

beforeEach(async () => {
  router = createRouter({ history: createMemoryHistory(), routes: [{ path: "/:page*", component: {} }] });
  await router.push("/users?role=tester&page=two&tab=open");
});

function use() {
  return createApp({}).use(router).runWithContext(() => useUrlFilters(["role", "query"]));
}

test("a filter goes into the address, back to the first page, and leaves the rest of it alone", async () => {
  const { filters, change } = use();
  expect(filters.value).toEqual({ role: "tester", query: "" });
  change({ query: "ada" });
  const address = "/users?role=tester&tab=open&query=ada";
  await vi.waitFor(() => expect(router.currentRoute.value.fullPath).toBe(address), PATIENT);
});

test("of two changes at once both stand", async () => {
  const { filters, change } = use();
  change({ query: "ada" });
  change({ role: "" });
  await vi.waitFor(() => expect(filters.value).toEqual({ role: "", query: "ada" }), PATIENT);
});

test("a change that fails does not keep the next from being made", async () => {
  const { filters, change } = use();
  const stop = router.beforeEach(() => {
    throw new Error("no such page");
  });
  router.onError(stop);
  change({ query: "lost" });
  await nextTick();
  change({ query: "made" });
  await vi.waitFor(() => expect(filters.value.query).toBe("made"), PATIENT);
});

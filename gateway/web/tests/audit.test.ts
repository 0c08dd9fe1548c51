import "./browser";
import { expect, test } from "vitest";
import { isDeletedBy, namesIn, targetOf } from "../src/composables/admin/auditNames";
import type { AuditEvent } from "../src/composables/admin/useAudit";

const [USER, GROUP] = ["01a20eef-3237-70a5-8515-c2d3bea5731b", "01a20eef-53af-79ab-aa9b-b4d84ab39411"];

function event(given: Partial<AuditEvent>): AuditEvent {
  return { before: "", after: "", actor_id: "", actor_name: "", result: "AUDIT_RESULT_DONE", ...given } as AuditEvent;
}

test("a target tells what it is and whose, however deep it stands", () => {
  expect(targetOf(`users/${USER}/identities/corporate`)).toEqual({ kind: "users", id: USER });
  expect(targetOf(`training/runs/${USER}`)).toEqual({ kind: "training/runs", id: USER });
  expect(targetOf("roles/labeller")).toEqual({ kind: "roles", id: "labeller" });
  expect(targetOf("me/password")).toEqual({ kind: "", id: "" });
});

test("things go by the newest name that the events tell, and by none that makes no sense", () => {
  const names = namesIn([
    event({ after: JSON.stringify({ [`groups/${GROUP}`]: { name: "vision" } }) }),
    event({ after: "no JSON {", before: "[1]" }),
    event({ before: JSON.stringify({ [`groups/${GROUP}`]: { name: "sight" }, group_id: GROUP }) }),
    event({ actor_id: USER, actor_name: "ada" }),
  ]);
  expect([...names]).toEqual([
    [USER, "ada"],
    [GROUP, "vision"],
  ]);
});

test("deleted is what was deleted itself, and not what the deletion was refused of", () => {
  const action = "espalier.auth.v1.GroupService/DeleteGroup";
  const deleted = event({ action, target: `groups/${GROUP}` });
  expect(isDeletedBy([deleted], `groups/${GROUP}`)).toBe(true);
  expect(isDeletedBy([{ ...deleted, result: "AUDIT_RESULT_REFUSED" }], `groups/${GROUP}`)).toBe(false);
  expect(isDeletedBy([deleted], `groups/${USER}`)).toBe(false);
});

// Users out of a CSV file: read, checked row by row, and made one after the other.
import { computed, ref, shallowRef } from "vue";
import { problemOf } from "../../api/problem";
import { queryClient } from "../../api/queries";
import { parseCsv, saveText, toCsv } from "./csv";
import { type Group, GROUPS, setGroupsOf } from "./useGroups";
import type { Role } from "./useRoles";
import { createUser, makePasswordLink, type NewUser, unknownPassword, USERS } from "./useUsers";

export const IMPORT_COLUMNS = ["username", "display_name", "email", "roles", "groups"] as const;
export const MOST_ROWS = 1000;
type Cells = Record<(typeof IMPORT_COLUMNS)[number], string>;

export interface ImportRow {
  /** Line of the file, from 1; the head is the first. */
  line: number;
  cells: Cells;
  user: NewUser;
  groupIds: string[];
  /** What is wrong, as far as it can be told before the platform is asked. */
  errors: string[];
  state: "ready" | "created" | "failed";
  /** The link with which the user chooses his password. */
  url: string;
  failure: string;
}

/** The rows of a text, or a sentence that says why there are none. */
export function readRows(text: string, roles: Role[], groups: Group[]): ImportRow[] | string {
  const [head, ...lines] = parseCsv(text);
  if (!head) return "The file is empty.";
  const names = head.map((name) => name.trim().toLowerCase());
  if (!names.includes("username")) return `The first line must name the columns, and one of them must be "username".`;
  const unknown = names.filter((name) => !(IMPORT_COLUMNS as readonly string[]).includes(name));
  if (unknown.length) return `There is no column ${unknown.join(", ")}; the columns are ${IMPORT_COLUMNS.join(", ")}.`;
  if (lines.length === 0) return "The file names the columns and no user.";
  if (lines.length > MOST_ROWS) return `The file has ${lines.length} users; at most ${MOST_ROWS} go at once.`;
  const seen = new Map<string, number>();
  return lines.map((cells, index) => readRow(cellsOf(names, cells), index + 2, { roles, groups, seen }));
}

function cellsOf(names: string[], cells: string[]): Cells {
  const cell = (name: string): string => (cells[names.indexOf(name)] ?? "").trim();
  return Object.fromEntries(IMPORT_COLUMNS.map((name) => [name, cell(name)])) as Cells;
}

function readRow(
  cells: Cells,
  line: number,
  { roles, groups, seen }: { roles: Role[]; groups: Group[]; seen: Map<string, number> },
): ImportRow {
  const errors: string[] = [];
  const { username, display_name, email } = cells;
  if (!/^[a-z0-9][a-z0-9._-]{1,63}$/.test(username)) {
    errors.push(`username "${username}" must be 2 to 64 lower-case letters, digits, dots, dashes or underscores`);
  }
  const before = seen.get(username);
  if (before) errors.push(`username "${username}" stands in line ${before} already`);
  seen.set(username, before ?? line);
  if (email && !/^[^\s@]+@[^\s@]+$/.test(email)) errors.push(`e-mail "${email}" is no address`);
  const wantedRoles = split(cells.roles);
  const unknownRoles = wantedRoles.filter((name) => !roles.some((role) => role.name === name));
  errors.push(...unknownRoles.map((name) => `there is no role "${name}"`));
  const found = split(cells.groups).map((name) => ({ name, id: groups.find((group) => group.name === name)?.id }));
  errors.push(...found.filter(({ id }) => !id).map(({ name }) => `there is no group "${name}"`));
  return {
    line,
    cells,
    user: { username, display_name, email, roles: wantedRoles },
    groupIds: found.flatMap(({ id }) => id ?? []),
    errors,
    state: "ready",
    url: "",
    failure: "",
  };
}

/** Names in one cell stand apart by spaces, commas or bars. */
function split(cell: string): string[] {
  return cell.split(/[\s,;|]+/).filter((name) => name !== "");
}

export function useUserImport() {
  const rows = shallowRef<ImportRow[]>([]);
  const problem = ref("");
  const isBusy = ref(false);
  const hasRun = ref(false);
  const ready = computed(() => rows.value.filter((row) => row.errors.length === 0 && row.state !== "created"));
  const wrong = computed(() => rows.value.filter((row) => row.errors.length > 0));
  const created = computed(() => rows.value.filter((row) => row.state === "created"));

  function read(text: string, roles: Role[], groups: Group[]): void {
    const found = readRows(text, roles, groups);
    problem.value = typeof found === "string" ? found : "";
    rows.value = typeof found === "string" ? [] : found;
    hasRun.value = false;
  }

  function forget(): void {
    rows.value = [];
    problem.value = "";
    hasRun.value = false;
  }

  async function make(row: ImportRow): Promise<Partial<ImportRow>> {
    try {
      const user = await createUser(row.user, unknownPassword());
      await setGroupsOf(user.id, user.group_ids, row.groupIds);
      return { state: "created", url: (await makePasswordLink(user.id)).url };
    } catch (error) {
      const { detail, violations } = problemOf(error);
      return { state: "failed", failure: violations?.map((each) => each.description).join("; ") || detail };
    }
  }

  /** Makes those users whose rows are right; the others stay as they are. */
  async function run(): Promise<void> {
    isBusy.value = true;
    hasRun.value = true;
    for (const row of ready.value) {
      const outcome = await make(row);
      rows.value = rows.value.map((each) => (each.line === row.line ? { ...each, ...outcome } : each));
    }
    isBusy.value = false;
    await Promise.all([USERS, GROUPS].map((name) => queryClient.invalidateQueries({ queryKey: [name] })));
  }

  /** The links of those who were made, to hand over; they cannot be had again. */
  function saveLinks(): void {
    const lines = created.value.map((row) => [row.user.username, row.user.display_name, row.user.email, row.url]);
    saveText("new-users.csv", toCsv([["username", "display_name", "email", "link"], ...lines]));
  }

  return { rows, problem, isBusy, hasRun, ready, wrong, created, read, forget, run, saveLinks };
}

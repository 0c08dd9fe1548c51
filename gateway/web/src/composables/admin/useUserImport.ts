// Users out of a CSV file: read, checked row by row, and made one after the other.
import { computed, ref, type Ref, shallowRef } from "vue";
import { problemOf } from "../../api/problem";
import { queryClient } from "../../api/queries";
import { saveText } from "../saveText";
import { parseCsv, toCsv } from "./csv";
import { type Group, GROUPS, setGroupsOf } from "./useGroups";
import type { Role } from "./useRoles";
import { createUser, makePasswordLink, type NewUser, unknownPassword, type User, USERS } from "./useUsers";

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
  /** The user, as soon as he is there; he may lack a group or the link still. */
  made: User | null;
  /** The link with which the user chooses his password. */
  url: string;
  failure: string;
}

/** What there is to be named in a file; null for what one may not see: then the platform alone judges it. */
export interface Known {
  roles: Pick<Role, "name">[] | null;
  groups: Pick<Group, "id" | "name">[] | null;
}

/** The rows of a text, or a sentence that says why there are none. */
export function readRows(text: string, known: Known): ImportRow[] | string {
  const [head, ...lines] = parseCsv(text);
  if (!head) return "The file is empty.";
  const names = head.cells.map((name) => name.trim().toLowerCase());
  if (!names.includes("username")) return `The first line must name the columns, and one of them must be "username".`;
  const unknown = names.filter((name) => !(IMPORT_COLUMNS as readonly string[]).includes(name));
  if (unknown.length) return `There is no column ${unknown.join(", ")}; the columns are ${IMPORT_COLUMNS.join(", ")}.`;
  if (lines.length === 0) return "The file names the columns and no user.";
  if (lines.length > MOST_ROWS) return `The file has ${lines.length} users; at most ${MOST_ROWS} go at once.`;
  const seen = new Map<string, number>();
  return lines.map(({ cells, line }) => readRow(cellsOf(names, cells), line, { known, seen }));
}

function cellsOf(names: string[], cells: string[]): Cells {
  const cell = (name: string): string => (cells[names.indexOf(name)] ?? "").trim();
  return Object.fromEntries(IMPORT_COLUMNS.map((name) => [name, cell(name)])) as Cells;
}

function readRow(
  cells: Cells,
  line: number,
  { known, seen }: { known: Known; seen: Map<string, number> },
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
  const unknownRoles = wantedRoles.filter((name) => known.roles?.every((role) => role.name !== name));
  errors.push(...unknownRoles.map((name) => `there is no role "${name}"`));
  const found = split(cells.groups).map((name) => ({ name, id: known.groups?.find((each) => each.name === name)?.id }));
  const lacking = known.groups ? (name: string) => `there is no group "${name}"` : () => "you may not see groups";
  errors.push(...found.filter(({ id }) => !id).map(({ name }) => lacking(name)));
  return {
    line,
    cells,
    user: { username, display_name, email, roles: wantedRoles },
    groupIds: found.flatMap(({ id }) => id ?? []),
    errors,
    state: "ready",
    made: null,
    url: "",
    failure: "",
  };
}

/** Names in one cell stand apart by spaces, commas or bars. */
function split(cell: string): string[] {
  return cell.split(/[\s,;|]+/).filter((name) => name !== "");
}

/**
 * The rows of a text; they are judged anew with the text and with what is known, and not before that is there. Once
 * the first user is made they stay as they were sent.
 */
export function useUserImport(text: Ref<string>, known: Ref<Known | null>) {
  const sent = shallowRef<ImportRow[] | null>(null);
  const isBusy = ref(false);
  const isEmpty = computed(() => text.value.trim() === "");
  const found = computed(() => (isEmpty.value || !known.value ? [] : readRows(text.value, known.value)));
  const problem = computed(() => (typeof found.value === "string" && !sent.value ? found.value : ""));
  const rows = computed(() => sent.value ?? (typeof found.value === "string" ? [] : found.value));
  const ready = computed(() => rows.value.filter((row) => row.errors.length === 0 && row.state !== "created"));

  async function make(row: ImportRow): Promise<Partial<ImportRow>> {
    let { made } = row;
    try {
      made ??= await createUser(row.user, unknownPassword());
      await setGroupsOf(made.id, made.group_ids, row.groupIds);
      return { state: "created", made, url: (await makePasswordLink(made.id)).url, failure: "" };
    } catch (error) {
      const { detail, violations } = problemOf(error);
      return { state: "failed", made, failure: violations?.map((each) => each.description).join("; ") || detail };
    }
  }

  /** Makes those users whose rows are right; the others stay as they are. A second time goes on where it failed. */
  async function run(): Promise<void> {
    if (isBusy.value) return;
    isBusy.value = true;
    sent.value = rows.value;
    for (const row of ready.value) {
      const outcome = await make(row);
      sent.value = rows.value.map((each) => (each.line === row.line ? { ...each, ...outcome } : each));
    }
    isBusy.value = false;
    await Promise.all([USERS, GROUPS].map((name) => queryClient.invalidateQueries({ queryKey: [name] })));
  }

  /** The links of those who were made, to hand over; they cannot be had again. */
  function saveLinks(): void {
    const lines = created.value.map((row) => [row.user.username, row.user.display_name, row.user.email, row.url]);
    saveText("new-users.csv", toCsv([["username", "display_name", "email", "link"], ...lines]));
  }

  const created = computed(() => rows.value.filter((row) => row.state === "created"));
  return {
    rows,
    problem,
    isBusy,
    isWaiting: computed(() => !isEmpty.value && !known.value),
    hasRun: computed(() => sent.value !== null),
    ready,
    wrong: computed(() => rows.value.filter((row) => row.errors.length > 0)),
    created,
    forget: () => (sent.value = null),
    run,
    saveLinks,
  };
}

// Whether this browser keeps a session when it is closed: chosen at the sign-in, and kept for the next one.
import { ref, watch } from "vue";

const KEPT = "espalier-stay";
const stays = ref(localStorage.getItem(KEPT) === "yes");

watch(stays, (yes) => localStorage.setItem(KEPT, yes ? "yes" : "no"));

export function useStay() {
  return { stays };
}

// Whether somebody is at this page. What a page asks by itself keeps the session alive, so it stops when nobody is there.
import { focusManager } from "@tanstack/vue-query";

/** Milliseconds without a key or a click, after which nobody is there although the page is in front. */
const AWAY = 12 * 3_600_000;
const LOOKED_EACH = 60_000;
const ACTS = ["pointerdown", "keydown", "wheel", "touchstart"];

/** From now on queries are repeated, and come anew, only while somebody is there. */
export function watchPresence(): void {
  focusManager.setEventListener((setFocused) => {
    let seen = Date.now();
    const look = (): void =>
      setFocused(document.visibilityState !== "hidden" && Date.now() - seen < AWAY);
    const note = (): void => {
      seen = Date.now();
      look();
    };
    for (const act of ACTS) window.addEventListener(act, note, { capture: true, passive: true });
    document.addEventListener("visibilitychange", note);
    const timer = window.setInterval(look, LOOKED_EACH);
    return () => {
      for (const act of ACTS) window.removeEventListener(act, note, { capture: true });
      document.removeEventListener("visibilitychange", note);
      window.clearInterval(timer);
    };
  });
}

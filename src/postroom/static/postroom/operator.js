// @ts-check
/**
 * Keeps the operator's overview fresh: every 5 s, while somebody looks at it.
 *
 * Replaces only the parts marked data-live, never while the reader is in one of them (a selection,
 * the focus, something unfolded), and the title of the tab, so that a pinned tab is an alarm. Without it the link
 * "Look again" does the same.
 */
"use strict";

(() => {
  const EVERY_MS = 5000;
  const TIMEOUT_MS = 4500;

  /** @param {Element} part */
  function isInUse(part) {
    const selection = document.getSelection();
    return (
      part.contains(document.activeElement) ||
      part.querySelector("details[open]") !== null ||
      (selection !== null && !selection.isCollapsed && part.contains(selection.anchorNode))
    );
  }

  /** @param {Document} fresh */
  function show(fresh) {
    document.title = fresh.title;
    for (const part of document.querySelectorAll("[data-live]")) {
      const name = part.getAttribute("data-live");
      const newer = fresh.querySelector(`[data-live="${name}"]`);
      if (newer && !isInUse(part)) {
        part.replaceChildren(...newer.childNodes);
      }
    }
  }

  async function refresh() {
    if (document.visibilityState !== "visible") {
      return;
    }
    try {
      const answer = await fetch(location.href, {
        credentials: "same-origin",
        redirect: "error", // logged out meanwhile: the next click says so
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (answer.ok) {
        show(fresh);
      } else {
        document.title = fresh.title || "?"; // 503: the database is gone, and the tab says STOPPED
      }
    } catch {
      document.title = "? " + document.title.replace(/^\? /, "");
    }
  }

  setInterval(refresh, EVERY_MS);
  document.addEventListener("visibilitychange", refresh);
})();

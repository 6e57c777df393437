/*
 * Saves the reload of the mailbox: fetches this page every two seconds while somebody looks at it
 * and replaces the parts marked data-live that have changed. Without it the page works as well.
 */
(() => {
  "use strict";

  const EVERY_MS = 2000;

  async function refresh() {
    if (document.visibilityState !== "visible") return;
    const response = await fetch(location.href, { credentials: "same-origin", cache: "no-store" });
    if (!response.ok || response.redirected) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    if (!document.getElementById("letter") && fresh.getElementById("letter")) {
      location.reload(); // the first e-mail: there is a right half now
      return;
    }
    const showsSame = openLetter(document) === openLetter(fresh);
    for (const part of document.querySelectorAll("[data-live]")) {
      const isList = part.dataset.live === "list";
      if (isList || showsSame) replace(part, fresh.querySelector(`[data-live="${part.dataset.live}"]`));
    }
    if (!showsSame) markOpen();
  }

  function openLetter(page) {
    const frame = page.querySelector("[data-letter]");
    return frame ? frame.dataset.letter : "";
  }

  /** The newest letter is a newer one than the one on view: the list must mark the one on view. */
  function markOpen() {
    const shown = openLetter(document);
    for (const link of document.querySelectorAll(".letters a")) {
      if (link.dataset.id === shown) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  /** Replace what changed, keeping the focus and the place in the list. */
  function replace(part, fresh) {
    if (!fresh || part.innerHTML === fresh.innerHTML) return;
    const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    const top = part.firstElementChild ? part.firstElementChild.scrollTop : 0;
    part.replaceChildren(...fresh.childNodes);
    if (part.firstElementChild) part.firstElementChild.scrollTop = top;
    if (focused) part.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  }

  async function keepFresh() {
    try {
      await refresh();
    } catch {
      // The server is away, perhaps restarting: the next turn asks again.
    }
    setTimeout(keepFresh, EVERY_MS);
  }

  setTimeout(keepFresh, EVERY_MS);
})();

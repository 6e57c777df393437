// @ts-check
/**
 * Keeps the status card of an e-mail up to date, so that nobody need reload the page.
 *
 * Starts by itself for every `.email-status[data-url]`; the first one owns the title of the page and
 * its parts with `data-when` or `data-unless`. A page may also use the class:
 *
 *     class Mine extends EmailStatusChecker { showSuccessStatus() { ... } }
 *     new Mine("ann@example.com", "verification").startChecking();
 *
 * Decides nothing: words, and when to ask again, come from the server; all text is set as text.
 *
 * @typedef {{name: string, label: string, state: string, state_text: string}} Step
 * @typedef {{
 *   status: string, detail?: string, type?: string, headline?: string, body?: string,
 *   error_message?: string | null, poll_after?: number, terminal?: boolean, next?: string | null,
 *   steps?: Step[],
 * }} Answer
 */
(() => {
  "use strict";

  if ("EmailStatusChecker" in globalThis) return; // two cards on one page bring the script twice

  const GIVE_UP_AFTER_SECONDS = 8;
  const LONGEST_PAUSE_SECONDS = 60;
  const FIRST_CHECK_AFTER_SECONDS = 2;
  const HOOKS = {
    pending: "showPendingStatus",
    sent: "showSuccessStatus",
    completed: "showSuccessStatus",
    failed: "showFailedStatus",
  };

  class EmailStatusChecker {
    /**
     * @param {string} email kept for pages that show it; it never goes into a URL
     * @param {string} [emailType]
     * @param {{element?: HTMLElement | null, url?: string, ownsPage?: boolean}} [options]
     */
    constructor(email, emailType = "verification", options = {}) {
      this.email = email;
      this.emailType = emailType;
      /** @type {HTMLElement | null} */
      this.element = options.element ?? null;
      this.url =
        options.url ??
        this.element?.dataset.url ??
        `/accounts/api/check-email-status/?type=${encodeURIComponent(emailType)}`;
      this.running = false;
      this.failures = 0;
      this.hooked = false;
      /** @type {ReturnType<typeof setTimeout> | undefined} */
      this.timer = undefined;
      /** @type {AbortController | null} */
      this.request = null;
      this.shown = this.element ? `${this.element.dataset.status} ${this.element.dataset.detail}` : "";
      this.ownsPage = options.ownsPage ?? false;
      this.pageTitle = withoutPrefix(document.title, this.part("headline")?.textContent ?? "");
      this.onVisible = () => (document.hidden ? this.pause() : this.checkStatus());
      this.onShown = (/** @type {Event} */ event) =>
        /** @type {PageTransitionEvent} */ (event).persisted && this.checkStatus();
      this.onHide = () => this.pause();
      this.onOnline = () => this.checkStatus();
    }

    /** Begin asking, until nothing more can change. A second call does nothing. */
    startChecking() {
      if (this.running || this.element?.dataset.terminal === "true") return;
      this.running = true;
      this.listen("addEventListener");
      this.schedule(Number(this.element?.dataset.pollAfter) || FIRST_CHECK_AFTER_SECONDS);
    }

    /** Ask no more, and forget an answer that is still under way. */
    stopChecking() {
      this.running = false;
      this.listen("removeEventListener");
      this.pause();
    }

    /** Ask now, unless a request is in flight already. Never throws. */
    async checkStatus() {
      if (!this.running || this.request) return;
      clearTimeout(this.timer);
      const request = new AbortController();
      this.request = request;
      const limit = setTimeout(() => request.abort(), GIVE_UP_AFTER_SECONDS * 1000);
      let pause;
      try {
        pause = await this.ask(request.signal);
      } catch {
        pause = this.request === request ? this.lostContact() : null;
      } finally {
        clearTimeout(limit);
      }
      if (this.request !== request) return; // stopped or paused meanwhile
      this.request = null;
      if (pause !== null) this.schedule(pause);
    }

    /**
     * One question and what follows from the answer.
     *
     * @param {AbortSignal} signal
     * @returns {Promise<number | null>} seconds until the next one, or null when there is none
     */
    async ask(signal) {
      const response = await fetch(withZone(this.url), {
        headers: { Accept: "application/json" },
        credentials: "same-origin",
        cache: "no-store",
        signal,
      });
      if (response.status === 404) return this.lostReceipt();
      if (response.status === 429) return Number(response.headers.get("Retry-After")) || 30;
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      const answer = /** @type {Answer} */ (await response.json());
      if (typeof answer?.status !== "string") throw new Error("not a status");
      if (signal.aborted) return null;
      this.failures = 0;
      this.note("");
      this.updateUI(answer);
      if (answer.terminal) this.stopChecking();
      return this.running ? Number(answer.poll_after) || 5 : null;
    }

    /** Ask again after a while; while the page is hidden there is no need. @param {number} seconds */
    schedule(seconds) {
      clearTimeout(this.timer);
      if (!this.running || document.hidden) return;
      const pause = Math.min(Math.max(seconds, 1), LONGEST_PAUSE_SECONDS);
      this.timer = setTimeout(() => this.checkStatus(), pause * 1000);
    }

    /** Let go of the timer and of the request: a page with neither may rest in the browser's cache. */
    pause() {
      clearTimeout(this.timer);
      const request = this.request;
      this.request = null;
      request?.abort();
    }

    /** No answer: what is shown stays, because it is the last thing known. @returns {number} */
    lostContact() {
      this.failures += 1;
      this.note(this.element?.dataset.reconnecting ?? "");
      return Math.min(2 ** this.failures, 30);
    }

    /** This browser's receipt is gone. @returns {null} */
    lostReceipt() {
      const gone = this.element?.dataset.gone ?? "";
      this.note(gone);
      setText(this.part("live"), gone);
      this.stopChecking();
      return null;
    }

    /**
     * Show an answer; a subclass may replace or extend this.
     *
     * @param {Answer} answer
     */
    updateUI(answer) {
      const known = Object.hasOwn(HOOKS, answer.status);
      const now = `${answer.status} ${answer.detail ?? ""}`;
      const changed = now !== this.shown;
      this.shown = now;
      if (this.element) this.showCard(this.element, answer, known, changed);
      if (known && (changed || !this.hooked)) this.callHook(answer);
      this.element?.dispatchEvent(new CustomEvent("email-status", { bubbles: true, detail: answer }));
    }

    /** Call what a page has defined for this word. @param {Answer} answer */
    callHook(answer) {
      this.hooked = true;
      const page = /** @type {Record<string, unknown>} */ (/** @type {unknown} */ (this));
      const hook = page[HOOKS[/** @type {keyof typeof HOOKS} */ (answer.status)]];
      if (typeof hook !== "function") return;
      if (answer.status === "failed") hook.call(this, answer.error_message ?? answer.headline ?? "");
      else hook.call(this, answer);
    }

    /**
     * @param {HTMLElement} element
     * @param {Answer} answer
     * @param {boolean} known
     * @param {boolean} changed
     */
    showCard(element, answer, known, changed) {
      element.dataset.status = known ? answer.status : "unknown";
      element.dataset.detail = answer.detail ?? "";
      element.dataset.terminal = String(answer.terminal === true);
      if (typeof answer.headline === "string") setText(this.part("headline"), answer.headline);
      if (typeof answer.body === "string") setText(this.part("body"), answer.body);
      this.showSteps(answer.steps ?? []);
      this.showNext(answer.next);
      if (this.ownsPage) showParts(answer);
      if (!changed || !answer.headline) return;
      const stop = /[.…!?]$/.test(answer.headline) ? "" : ".";
      setText(this.part("live"), `${answer.headline}${stop} ${answer.body ?? ""}`.trim());
      if (this.ownsPage) document.title = `${answer.headline} – ${this.pageTitle}`;
    }

    /** Stations change in place; a first report from the provider may add one. @param {Step[]} steps */
    showSteps(steps) {
      const list = this.element?.querySelector(".steps");
      if (!list || steps.length === 0) return;
      const items = steps.map((step) => showStep(list, step));
      if (items.length !== list.children.length) list.replaceChildren(...items);
    }

    /** The way on, if it leads to this site. @param {string | null | undefined} next */
    showNext(next) {
      const link = this.part("next")?.querySelector("a");
      if (!link || !next || new URL(next, location.href).origin !== location.origin) return;
      link.setAttribute("href", next);
      /** @type {HTMLElement} */ (this.part("next")).hidden = false;
    }

    /** A small line about the connection, not about the e-mail. @param {string} text */
    note(text) {
      setText(this.part("note"), text);
    }

    /** @param {string} name @returns {HTMLElement | null} */
    part(name) {
      return this.element?.querySelector(`[data-part=${name}]`) ?? null;
    }

    /** @param {"addEventListener" | "removeEventListener"} verb */
    listen(verb) {
      document[verb]("visibilitychange", this.onVisible);
      window[verb]("pageshow", this.onShown);
      window[verb]("pagehide", this.onHide);
      window[verb]("online", this.onOnline);
    }
  }

  /**
   * @param {Element} list
   * @param {Step} step
   * @returns {HTMLElement} its item, or a new one like the others
   */
  function showStep(list, step) {
    const found = list.querySelector(`[data-step="${CSS.escape(step.name)}"]`);
    const item = /** @type {HTMLElement} */ (found ?? list.children[0].cloneNode(true));
    item.dataset.step = step.name;
    item.dataset.state = step.state;
    if (step.state === "now") item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
    setText(item.querySelector("[data-part=label]"), step.label);
    setText(item.querySelector("[data-part=state]"), step.state_text);
    return item;
  }

  /**
   * Parts of the page that belong to some states only, `data-when="bounced refused"`, or to all
   * others, `data-unless="failed"`.
   *
   * @param {Answer} answer
   */
  function showParts(answer) {
    const parts = document.querySelectorAll("[data-when], [data-unless]");
    for (const part of /** @type {NodeListOf<HTMLElement>} */ (parts)) {
      const words = (part.dataset.when ?? part.dataset.unless ?? "").split(" ");
      const named = words.includes(answer.status) || words.includes(answer.detail ?? "");
      part.hidden = named === "unless" in part.dataset;
    }
  }

  /**
   * A button that may be used again after a while: `data-resend-in` (seconds), `data-resend-wait`
   * ("Send again in {time}"). It stays a button that can be focused; the server keeps the limit.
   *
   * @param {HTMLElement} button
   */
  function countDown(button) {
    const ready = button.textContent ?? "";
    const until = Date.now() + Number(button.dataset.resendIn) * 1000;
    const tick = () => {
      const left = Math.ceil((until - Date.now()) / 1000);
      if (left <= 0) {
        button.removeAttribute("aria-disabled");
        setText(button, ready);
        return;
      }
      const time = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
      button.setAttribute("aria-disabled", "true");
      setText(button, (button.dataset.resendWait ?? "{time}").replace("{time}", time));
      setTimeout(tick, 1000);
    };
    button.addEventListener("click", (event) => {
      if (button.getAttribute("aria-disabled") === "true") event.preventDefault();
    });
    tick();
  }

  /** Writes only what differs, so that nothing is announced twice. @param {Element | null | undefined} element @param {string} text */
  function setText(element, text) {
    if (element && element.textContent !== text) element.textContent = text;
  }

  /** @param {string} title @param {string} prefix */
  function withoutPrefix(title, prefix) {
    const head = `${prefix} – `;
    return prefix && title.startsWith(head) ? title.slice(head.length) : title;
  }

  /** Tell the server the visitor's zone, so that "at 14:03" is their 14:03. @param {string} url */
  function withZone(url) {
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    return zone ? `${url}${url.includes("?") ? "&" : "?"}zone=${encodeURIComponent(zone)}` : url;
  }

  function begin() {
    const cards = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".email-status[data-url]"));
    cards.forEach((element, place) => {
      const options = { element, ownsPage: place === 0 };
      new EmailStatusChecker("", element.dataset.type, options).startChecking();
      if (options.ownsPage) showParts({ status: element.dataset.status ?? "", detail: element.dataset.detail });
    });
    /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-resend-in]")).forEach(countDown);
  }

  Object.assign(globalThis, { EmailStatusChecker });
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();

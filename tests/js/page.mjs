/**
 * A page for email-status.js: just enough of a browser, with a clock and a network that the test moves.
 *
 * Nothing of the script is replaced. It runs in a context of its own, whose timers, fetch, document
 * and window are these.
 */
import { readFileSync } from "node:fs";
import vm from "node:vm";

const SCRIPT = new URL("../../src/postroom/static/postroom/email-status.js", import.meta.url);

export class Element extends EventTarget {
  /** @param {Record<string, string>} [data] */
  constructor(data = {}) {
    super();
    this.dataset = { ...data };
    this.parts = new Map();
    this.attributes = new Map();
    this.hidden = false;
    this.writes = 0;
    this.text = "";
  }
  get textContent() {
    return this.text;
  }
  set textContent(text) {
    this.text = text;
    this.writes += 1;
  }
  querySelector(selector) {
    return this.parts.get(selector) ?? null;
  }
  setAttribute(name, value) {
    this.attributes.set(name, value);
  }
  getAttribute(name) {
    return this.attributes.get(name) ?? null;
  }
  removeAttribute(name) {
    this.attributes.delete(name);
  }
}

/** The list of stations. */
class Steps extends Element {
  children = [];
  item(name) {
    const item = new Element({ step: name, state: "todo" });
    for (const part of ["label", "state"]) item.parts.set(`[data-part=${part}]`, new Element());
    item.cloneNode = () => this.item(item.dataset.step);
    return item;
  }
  replaceChildren(...items) {
    this.children = items;
  }
  querySelector(selector) {
    return this.children.find((item) => selector === `[data-step="${item.dataset.step}"]`) ?? null;
  }
}

/** The card as the server renders it. @param {Record<string, string>} [data] */
export function card(data = {}) {
  const element = new Element({
    url: "/mail/status/1/", type: "verification", status: "pending", detail: "queued", pollAfter: "1",
    terminal: "false", reconnecting: "Reconnecting…", gone: "Gone.", ...data,
  });
  for (const part of ["headline", "body", "live", "note", "next"]) {
    element.parts.set(`[data-part=${part}]`, new Element());
  }
  element.parts.get("[data-part=headline]").text = "Preparing your email";
  element.parts.get("[data-part=next]").hidden = true;
  element.parts.get("[data-part=next]").parts.set("a", new Element());
  const steps = new Steps();
  steps.replaceChildren(...["saved", "sent"].map((name) => steps.item(name)));
  element.parts.set(".steps", steps);
  element.part = (name) => element.parts.get(`[data-part=${name}]`);
  element.steps = steps;
  return element;
}

/** Let every promise that can go on go on. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));

export class Page {
  /** @param {{cards?: Element[], parts?: Element[], buttons?: Element[], title?: string}} [content] */
  constructor({ cards = [], parts = [], buttons = [], title = "Check your email" } = {}) {
    this.now = 0;
    this.timers = new Map();
    this.lastTimer = 0;
    /** @type {{url: string, options: any, answer: (response: any) => void, fail: () => void}[]} */
    this.requests = [];
    this.document = Object.assign(new EventTarget(), {
      readyState: "interactive",
      hidden: false,
      title,
      querySelectorAll: (selector) =>
        ({ ".email-status[data-url]": cards, "[data-when], [data-unless]": parts, "[data-resend-in]": buttons })[selector],
    });
    this.window = new EventTarget();
    this.context = vm.createContext({
      document: this.document,
      window: this.window,
      location: new URL("https://shop.example/accounts/check-email/"),
      fetch: (url, options) => this.request(url, options),
      setTimeout: (run, delay) => this.later(run, delay),
      clearTimeout: (timer) => this.timers.delete(timer),
      Date: { now: () => this.now },
      Intl: { DateTimeFormat: () => ({ resolvedOptions: () => ({ timeZone: "Asia/Dhaka" }) }) },
      CSS: { escape: (text) => text },
      HTMLElement: Element,
      AbortController, CustomEvent, URL,
    });
    this.load();
  }

  load() {
    vm.runInContext(readFileSync(SCRIPT, "utf8"), this.context);
  }

  /** Run a page's own code, and return what it returns. @param {string} source */
  run(source) {
    return vm.runInContext(source, this.context);
  }

  later(run, delay) {
    this.timers.set((this.lastTimer += 1), { run, at: this.now + delay });
    return this.lastTimer;
  }

  request(url, options) {
    return new Promise((resolve, reject) => {
      const request = { url, options, at: this.now, answer: resolve, fail: () => reject(new TypeError("network")) };
      options.signal.addEventListener("abort", () => reject(new DOMException("aborted", "AbortError")));
      this.requests.push(request);
    });
  }

  /** Let time pass, timer by timer. @param {number} seconds */
  async pass(seconds) {
    const end = this.now + seconds * 1000;
    for (;;) {
      const [next] = [...this.timers].filter(([, timer]) => timer.at <= end).sort(([, a], [, b]) => a.at - b.at);
      if (!next) break;
      this.timers.delete(next[0]);
      this.now = next[1].at;
      next[1].run();
      await settle();
    }
    this.now = end;
    await settle();
  }

  get last() {
    return this.requests[this.requests.length - 1];
  }

  /** Answer the request under way. @param {object} body */
  async answer(body, { status = 200, headers = {} } = {}) {
    this.last.answer(new Response(JSON.stringify(body), { status, headers }));
    await settle();
  }

  /** @param {boolean} hidden */
  async hide(hidden) {
    this.document.hidden = hidden;
    this.document.dispatchEvent(new Event("visibilitychange"));
    await settle();
  }
}

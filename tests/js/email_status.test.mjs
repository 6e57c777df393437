import assert from "node:assert/strict";
import test from "node:test";

import { Element, Page, card, settle } from "./page.mjs";

const SENT = { status: "sent", detail: "accepted", headline: "Email sent", body: "It usually arrives.", poll_after: 3, terminal: false };
const PENDING = { status: "pending", detail: "queued", headline: "Preparing your email", body: "", poll_after: 2, terminal: false };
const DONE = { status: "completed", detail: "verified", headline: "Your address is confirmed", body: "", poll_after: 30, terminal: true, next: "/accounts/login/" };

test("the first question comes when the server said, and names the zone but no address", async () => {
  const page = new Page({ cards: [card()] });

  await page.pass(0.9);
  assert.equal(page.requests.length, 0);
  await page.pass(0.2);

  assert.equal(page.last.url, "/mail/status/1/?zone=Asia%2FDhaka");
  assert.equal(page.last.options.cache, "no-store");
  assert.equal(page.last.options.credentials, "same-origin");
});

test("an answer is shown, and the next question waits as long as the server asks", async () => {
  const element = card();
  const page = new Page({ cards: [element] });
  await page.pass(1);

  await page.answer(SENT);
  assert.equal(element.part("headline").textContent, "Email sent");
  assert.equal(element.part("body").textContent, "It usually arrives.");
  assert.deepEqual([element.dataset.status, element.dataset.detail], ["sent", "accepted"]);

  await page.pass(2.9);
  assert.equal(page.requests.length, 1);
  await page.pass(0.2);
  assert.equal(page.requests.length, 2);
});

test("there is never a second request beside the one in flight", async () => {
  const page = new Page({ cards: [card()] });
  await page.pass(1);

  await page.pass(5);
  page.window.dispatchEvent(new Event("online"));
  await page.hide(false);

  assert.equal(page.requests.length, 1);
});

test("a request that hangs is given up after 8 s and another one is tried", async () => {
  const element = card();
  const page = new Page({ cards: [element] });
  await page.pass(1);

  await page.pass(8);
  assert.equal(page.requests[0].options.signal.aborted, true);
  assert.equal(element.part("note").textContent, "Reconnecting…");
  await page.pass(2);

  assert.equal(page.requests.length, 2);
});

for (const [what, trouble] of Object.entries({
  "network is down": (page) => page.last.fail(),
  "server has trouble": (page) => page.answer({}, { status: 503 }),
  "a proxy answers with a page": (page) => page.last.answer(new Response("<html>login to the hotel</html>")),
  "the answer is no status": (page) => page.answer({ hello: 1 }),
  "the answer is null": (page) => page.answer(null),
})) {
  test(`when ${what}, what is known stays, and the page tries again`, async () => {
    const element = card();
    const page = new Page({ cards: [element] });
    await page.pass(1);
    await page.answer(SENT);
    await page.pass(3);

    await trouble(page);
    await settle();

    assert.equal(element.part("headline").textContent, "Email sent");
    assert.equal(element.dataset.status, "sent");
    assert.equal(element.part("note").textContent, "Reconnecting…");
    await page.pass(2);
    await page.answer(SENT);
    assert.equal(page.requests.length, 3);
    assert.equal(element.part("note").textContent, "");
  });
}

test("the pause after an error doubles from 2 s", async () => {
  const page = new Page({ cards: [card()] });
  await page.pass(1);
  const pauses = [];

  for (let round = 0; round < 6; round += 1) {
    const from = page.now;
    page.last.fail();
    await settle();
    const before = page.requests.length;
    while (page.requests.length === before) await page.pass(1);
    pauses.push((page.now - from) / 1000);
  }

  assert.deepEqual(pauses, [2, 4, 8, 16, 30, 30]);
});

test("too many questions: the page waits as long as it is told and is not in trouble", async () => {
  const element = card();
  const page = new Page({ cards: [element] });
  await page.pass(1);

  await page.answer({ status: "slow_down", poll_after: 30 }, { status: 429, headers: { "Retry-After": "12" } });

  assert.equal(element.part("note").textContent, "");
  await page.pass(11);
  assert.equal(page.requests.length, 1);
  await page.pass(1.5);
  assert.equal(page.requests.length, 2);
});

test("a terminal state ends the questions and shows the way on", async () => {
  const element = card();
  const page = new Page({ cards: [element] });
  await page.pass(1);

  await page.answer(DONE);
  await page.pass(3600);
  page.window.dispatchEvent(new Event("online"));
  await page.hide(false);

  assert.equal(page.requests.length, 1);
  assert.equal(element.part("next").hidden, false);
  assert.equal(element.part("next").querySelector("a").getAttribute("href"), "/accounts/login/");
});

for (const next of ["https://evil.example/", "//evil.example/", "javascript:alert(1)"]) {
  test(`a way on to ${next} is not offered`, async () => {
    const element = card();
    const page = new Page({ cards: [element] });
    await page.pass(1);

    await page.answer({ ...DONE, next });

    assert.equal(element.part("next").hidden, true);
  });
}

test("a state that was terminal at the first paint asks nothing", async () => {
  const page = new Page({ cards: [card({ terminal: "true" })] });

  await page.pass(600);

  assert.equal(page.requests.length, 0);
});

test("without a receipt the page says so and stops", async () => {
  const element = card();
  const page = new Page({ cards: [element] });
  await page.pass(1);

  await page.answer({ status: "none" }, { status: 404 });
  await page.pass(600);

  assert.equal(page.requests.length, 1);
  assert.equal(element.part("note").textContent, "Gone.");
  assert.equal(element.part("headline").textContent, "Preparing your email");
});

test("a hidden page rests, and asks at once when it is shown again", async () => {
  const page = new Page({ cards: [card()] });
  await page.pass(1);
  await page.answer(PENDING);

  await page.hide(true);
  await page.pass(3600);
  assert.equal(page.requests.length, 1);
  await page.hide(false);

  assert.equal(page.requests.length, 2);
});

test("a page hidden during a request drops it without talk of trouble", async () => {
  const element = card();
  const page = new Page({ cards: [element] });
  await page.pass(1);

  await page.hide(true);
  await page.hide(false);
  await settle();

  assert.equal(page.requests[0].options.signal.aborted, true);
  assert.equal(page.requests.length, 2);
  assert.equal(element.part("note").textContent, "");
});

test("a page that comes back from the browser's cache asks at once", async () => {
  const page = new Page({ cards: [card()] });
  await page.pass(1);
  await page.answer(PENDING);
  page.window.dispatchEvent(new Event("pagehide"));
  await page.pass(600);
  assert.equal(page.requests.length, 1);

  page.window.dispatchEvent(Object.assign(new Event("pageshow"), { persisted: true }));
  await settle();

  assert.equal(page.requests.length, 2);
});

test("back on line the page asks at once", async () => {
  const page = new Page({ cards: [card()] });
  await page.pass(1);
  page.last.fail();
  await settle();

  page.window.dispatchEvent(new Event("online"));
  await settle();

  assert.equal(page.requests.length, 2);
});

test("each state is announced once, and a changed number of seconds is not a change", async () => {
  const element = card();
  const page = new Page({ cards: [element] });
  const retrying = { ...PENDING, detail: "retrying", headline: "Still trying to send" };
  assert.equal(element.part("live").textContent, "");

  for (const body of ["in 20 seconds", "in 15 seconds", "in 10 seconds"]) {
    await page.pass(2);
    await page.answer({ ...retrying, body });
  }

  assert.equal(element.part("live").writes, 1);
  assert.equal(element.part("live").textContent, "Still trying to send. in 20 seconds");
  assert.equal(element.part("body").textContent, "in 10 seconds");
});

test("a headline that ends by itself gets no second full stop", async () => {
  const element = card();
  const page = new Page({ cards: [element] });
  await page.pass(2);

  await page.answer({ ...PENDING, detail: "sending", headline: "Sending…", body: "" });

  assert.equal(element.part("live").textContent, "Sending…");
});

test("a first answer that says what the page says already is not announced", async () => {
  const element = card();
  const page = new Page({ cards: [element] });
  await page.pass(1);

  await page.answer(PENDING);

  assert.equal(element.part("live").writes, 0);
  assert.equal(page.document.title, "Check your email");
});

test("the title tells the state in front of the page's own", async () => {
  const page = new Page({ cards: [card()], title: "Preparing your email – Check your email – shop.example" });
  await page.pass(1);

  await page.answer(SENT);
  assert.equal(page.document.title, "Email sent – Check your email – shop.example");
  await page.pass(3);
  await page.answer(DONE);

  assert.equal(page.document.title, "Your address is confirmed – Check your email – shop.example");
});

test("the second card of a page leaves the title alone", async () => {
  const page = new Page({ cards: [card({ terminal: "true" }), card()] });
  await page.pass(1);

  await page.answer(SENT);

  assert.equal(page.document.title, "Check your email");
});

test("an unknown word becomes a neutral state with the server's text", async () => {
  const element = card();
  const page = new Page({ cards: [element] });
  await page.pass(1);

  await page.answer({ status: "teleported", detail: "gone", headline: "Beamed", body: "Really." });

  assert.equal(element.dataset.status, "unknown");
  assert.equal(element.part("headline").textContent, "Beamed");
  await page.pass(5);
  assert.equal(page.requests.length, 2);
});

const step = (name, state) => ({ name, label: name.toUpperCase(), state, state_text: `is ${state}` });

test("steps change their state, in words too", async () => {
  const element = card();
  const page = new Page({ cards: [element] });
  await page.pass(1);

  await page.answer({ ...SENT, steps: [step("saved", "done"), step("sent", "now")] });

  const [saved, sent] = element.steps.children;
  assert.deepEqual([saved.dataset.state, sent.dataset.state], ["done", "now"]);
  assert.deepEqual([saved.getAttribute("aria-current"), sent.getAttribute("aria-current")], [null, "step"]);
  assert.equal(sent.querySelector("[data-part=state]").textContent, "is now");
});

test("a step that a first report has added comes into its place", async () => {
  const element = card();
  const page = new Page({ cards: [element] });
  await page.pass(1);

  await page.answer({ ...SENT, steps: [step("saved", "done"), step("arrived", "now"), step("sent", "done")] });

  assert.deepEqual(element.steps.children.map((item) => item.dataset.step), ["saved", "arrived", "sent"]);
  assert.equal(element.steps.children[1].querySelector("[data-part=label]").textContent, "ARRIVED");
});

test("parts of the page that belong to some states come and go", async () => {
  const waiting = new Element({ when: "pending sent" });
  const repair = new Element({ when: "bounced refused" });
  const advice = new Element({ unless: "failed withdrawn" });
  const page = new Page({ cards: [card()], parts: [waiting, repair, advice] });
  assert.deepEqual([waiting.hidden, repair.hidden, advice.hidden], [false, true, false]);
  await page.pass(1);

  await page.answer({ ...SENT, status: "pending", detail: "withdrawn" });
  assert.deepEqual([waiting.hidden, repair.hidden, advice.hidden], [false, true, true]);
  await page.pass(5);
  await page.answer({ ...SENT, status: "failed", detail: "bounced", terminal: true });

  assert.deepEqual([waiting.hidden, repair.hidden, advice.hidden], [true, false, true]);
});

test("an absurd pause is kept within reason", async () => {
  for (const [poll_after, at_least, at_most] of [[0.001, 1, 1], [1e9, 60, 60], ["soon", 5, 5], [null, 5, 5]]) {
    const page = new Page({ cards: [card()] });
    await page.pass(1);
    await page.answer({ ...PENDING, poll_after });
    await page.pass(at_least - 0.1);
    assert.equal(page.requests.length, 1, `${poll_after}`);
    await page.pass(at_most - at_least + 0.2);
    assert.equal(page.requests.length, 2, `${poll_after}`);
  }
});

test("a subclass of the original's shape gets its calls", async () => {
  const page = new Page();
  const shown = page.run(`
    const shown = [];
    class Mine extends EmailStatusChecker {
      showPendingStatus() { shown.push("pending"); }
      showSuccessStatus() { shown.push("success"); }
      showFailedStatus(message) { shown.push(message); }
    }
    globalThis.checker = new Mine("ann+x@example.com", "verification");
    checker.startChecking();
    shown;
  `);

  await page.pass(2);
  assert.equal(page.last.url, "/accounts/api/check-email-status/?type=verification&zone=Asia%2FDhaka");
  await page.answer({ status: "pending" });
  await page.pass(5);
  await page.answer({ status: "sent", poll_after: 1 });
  await page.pass(1);
  await page.answer({ status: "failed", error_message: "The message could not be sent.", terminal: true });

  assert.deepEqual([...shown], ["pending", "success", "The message could not be sent."]);
  assert.equal(page.run("checker.email"), "ann+x@example.com");
});

test("hooks that a page did not define are not missed", async () => {
  const page = new Page();
  page.run("new EmailStatusChecker('a@example.com', 'verification').startChecking()");
  await page.pass(2);

  await page.answer({ status: "failed" });
  await page.pass(5);

  assert.equal(page.requests.length, 2);
});

test("after stopChecking a late answer changes nothing", async () => {
  const page = new Page();
  const element = card();
  page.context.element = element;
  page.run("globalThis.checker = new EmailStatusChecker('', 'verification', {element}); checker.startChecking()");
  await page.pass(1);

  page.run("checker.stopChecking()");
  await page.answer(SENT);
  await page.pass(600);

  assert.equal(element.part("headline").textContent, "Preparing your email");
  assert.equal(page.requests.length, 1);
});

test("starting twice is starting once; after a stop it can start again", async () => {
  const page = new Page();
  page.run("globalThis.checker = new EmailStatusChecker('', 'verification'); checker.startChecking(); checker.startChecking()");
  await page.pass(2);
  assert.equal(page.requests.length, 1);

  page.run("checker.stopChecking(); checker.startChecking()");
  await page.pass(2);

  assert.equal(page.requests.length, 2);
});

test("the script twice on a page asks once", async () => {
  const page = new Page({ cards: [card()] });

  page.load();
  await page.pass(1);

  assert.equal(page.requests.length, 1);
});

test("a page may listen to each answer", async () => {
  const element = card();
  const page = new Page({ cards: [element] });
  const heard = [];
  element.addEventListener("email-status", (event) => heard.push(event.detail.detail));
  await page.pass(1);

  await page.answer(SENT);

  assert.deepEqual(heard, ["accepted"]);
});

test("send again counts down in sight, stays a button, and is itself again in the end", async () => {
  const button = new Element({ resendIn: "61", resendWait: "Send again in {time}" });
  button.text = "Send again";
  const page = new Page({ buttons: [button] });

  assert.equal(button.textContent, "Send again in 1:01");
  const click = new Event("click", { cancelable: true });
  button.dispatchEvent(click);
  assert.equal(click.defaultPrevented, true);
  await page.pass(14);
  assert.equal(button.textContent, "Send again in 0:47");
  await page.pass(48);

  assert.equal(button.textContent, "Send again");
  assert.equal(button.getAttribute("aria-disabled"), null);
});

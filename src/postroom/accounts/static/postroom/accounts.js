// @ts-check
/*
 * The waiting page: when the address is confirmed elsewhere, heading and title say so and no longer
 * "Check your email". The rest of the page follows email-status.js; a reload would show the same.
 */
"use strict";

document.addEventListener("email-status", (event) => {
  const answer = /** @type {CustomEvent} */ (event).detail;
  if (answer.status !== "completed") return;
  const heading = document.querySelector("h1");
  if (!heading || heading.textContent === answer.headline) return;
  document.title = document.title.replace(` – ${heading.textContent} – `, " – ");
  heading.textContent = answer.headline;
});

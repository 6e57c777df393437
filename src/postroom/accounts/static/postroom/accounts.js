// @ts-check
/*
 * The waiting page: when the address is confirmed elsewhere, the heading says so and the advice for
 * waiting goes. The card beside it is email-status.js; a reload of the page would show the same.
 */
"use strict";

document.addEventListener("email-status", (event) => {
  const answer = /** @type {CustomEvent} */ (event).detail;
  if (answer.status !== "completed") return;
  const heading = document.querySelector("h1");
  if (heading && heading.textContent !== answer.headline) heading.textContent = answer.headline;
  for (const part of document.querySelectorAll(".until-confirmed")) part.setAttribute("hidden", "");
});

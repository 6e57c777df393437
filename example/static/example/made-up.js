"use strict";

/* Development only: fill the registration form with somebody who does not exist. */

const NAMES = ["ann", "ben", "cleo", "dan", "eva", "finn", "greta", "hugo"];
const WORDS = ["copper", "lantern", "river", "walnut", "harbour", "velvet", "comet", "thistle"];
const pick = (list) => list[Math.floor(Math.random() * list.length)];

const email = document.querySelector("form input[name=email]");
const password = document.querySelector("form input[name=password]");

if (email && password) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "button button--link";
  button.textContent = "Fill in a made-up person";
  button.addEventListener("click", () => {
    email.value = `${pick(NAMES)}-${Math.floor(Math.random() * 9000 + 1000)}@example.com`;
    password.value = `${pick(WORDS)} ${pick(WORDS)} ${pick(WORDS)}`;
    password.type = "text";
  });
  email.form.append(button);
}

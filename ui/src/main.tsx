// Starts the page: everything that it shows comes from the daemon that it came from.

import { render } from "preact";

import { App } from "./app";
import "./page.css";
import { store } from "./store";

const place = document.getElementById("page");
if (place) {
  place.replaceChildren();
  render(<App />, place);
  store.start();
}

// What stands behind # is a view's address, so the way past the navigation goes without it.
document.getElementById("skip")?.addEventListener("click", (event) => {
  event.preventDefault();
  document.querySelector("h1")?.focus();
});

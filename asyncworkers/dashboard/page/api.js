// Speaks with the server: asks, acts, and listens to its events.

import { $, announce, setText } from "./dom.js";
import { plural } from "./format.js";

export class Trouble extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function answered(answer) {
  if (answer.ok) return answer.status === 204 ? null : answer.json();
  let message = `the server answered ${answer.status}`;
  try {
    message = (await answer.json()).error.message;
  } catch { /* no JSON: a proxy's page, say */ }
  throw new Trouble(answer.status, message);
}

export async function get(path, query = {}) {
  const given = new URLSearchParams(Object.entries(query).filter(([, one]) => one !== null && one !== ""));
  const asked = given.size ? `${path}?${given}` : path;
  return answered(await fetch(asked, { credentials: "same-origin", cache: "no-store" }));
}

export async function post(path, body) {
  return answered(await fetch(path, {
    method: "POST",
    credentials: "same-origin",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  }));
}

export const act = (action, target, workers = 0) => post("api/act", { action, target, workers });

function say(state, text) {
  $("live").dataset.live = state;
  if ($("live-text").textContent !== text) {
    setText($("live-text"), text);
    announce(text === "live" ? "The page is live" : text);
  }
}

// Calls `shown` with each picture. A browser asks again by itself when a stream has ended, which it
// does now and then; only if nothing comes for a while is that worth a word.
export function listen(shown) {
  let heard = performance.now();
  let dropped = 0;
  let source = null;
  const open = () => {
    source = new EventSource("api/live");
    source.addEventListener("picture", (event) => {
      heard = performance.now();
      const picture = JSON.parse(event.data);
      if (picture === null) return;
      say(picture.state === "open" ? "on" : "warn", picture.state === "open" ? "live" : picture.state);
      shown(picture);
    });
    source.addEventListener("dropped", (event) => {
      dropped += JSON.parse(event.data).dropped;
      setText($("dropped"), `${plural(dropped, "update")} ${dropped === 1 ? "was" : "were"} left out: this page was too slow for them`);
      $("dropped").hidden = false;
    });
  };
  open();
  setInterval(async () => {
    const quiet = performance.now() - heard;
    if (quiet < 5000) return;
    if (source.readyState === EventSource.CLOSED) open();  // refused: asked again only by us
    try {
      const picture = await get("api/overview");
      say("warn", picture.state === "open" ? "every few seconds" : picture.state);
      shown(picture);
    } catch (trouble) {
      if (trouble.status === 401) location.reload();
      say("off", trouble.status ? trouble.message : "the server cannot be reached");
    }
  }, 3000);
}

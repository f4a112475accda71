// Begins: signs in if need be, then shows the page that the address names, and keeps it live.

import { get, listen, post } from "./api.js";
import { $, setText } from "./dom.js";
import { count, plural } from "./format.js";
import { JobPage } from "./job.js";
import { Jobs } from "./jobs.js";
import { Overview } from "./overview.js";
import { Workers } from "./workers.js";

const VIEWS = ["sign-in", "refused", "overview", "jobs", "job", "workers"];
let view = null;
let picture = null;
let pages = null;

function open(name) {
  view = name;
  for (const one of VIEWS) $(`view-${one}`).hidden = one !== name;
  for (const link of $("nav").querySelectorAll("a")) {
    const here = link.dataset.view === name || (name === "job" && link.dataset.view === "jobs");
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

const TITLES = { overview: "Overview", jobs: "Jobs", job: "Job", workers: "Workers" };

const TOKEN = /^#token=([\x21-\x7e]+)$/;

// Somebody opens the address with the token in a tab that shows this page already, to sign in again say:
// nothing is loaded then.
addEventListener("hashchange", () => {
  if (TOKEN.test(location.hash)) location.reload();
});

async function route(first) {
  if (TOKEN.test(location.hash)) return;
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [name, ...rest] = path.split("/");
  const chosen = name === "" ? "overview" : name;
  if (!(chosen in TITLES)) {
    location.replace("#/");
    return;
  }
  const changed = view !== chosen;
  open(chosen);
  document.title = `${TITLES[chosen]} · ${$("name").textContent}`;
  if (changed && first !== true) $("main").focus({ preventScroll: true });
  if (changed) scrollTo(0, 0);
  if (picture && chosen !== "job") show(picture);
  if (chosen === "jobs") await pages.jobs.open(new URLSearchParams(query));
  if (chosen === "job") {
    let ident = rest.join("/");
    try {
      ident = decodeURIComponent(ident);
    } catch { /* an address that was cut short names no job */ }
    document.title = `${ident} · ${$("name").textContent}`;
    await pages.job.open(ident);
  }
}

function show(seen) {
  picture = seen;
  setText($("name"), seen.name);
  const streams = seen.streams;
  const trouble = [
    streams.refused && `${count(streams.refused)} turned away`,
    streams.slow && `${count(streams.slow)} too slow`,
    streams.dropped && `${plural(streams.dropped, "update")} dropped`,
  ].filter(Boolean).join(", ");
  setText($("watching"), `${count(streams.open)} watching${trouble ? `, ${trouble}` : ""}`);
  if (view === "overview") pages.overview.show(seen);
  if (view === "workers") pages.workers.show(seen);
  if (view === "jobs") pages.jobs.tick(seen);
  if (view === "job") pages.job.tick();
}

async function signIn(token) {
  await post("session", { token });
}

async function begin() {
  const given = TOKEN.exec(location.hash);
  if (given) {
    history.replaceState(null, "", "#/");  // it should stand in no history
    try {
      await signIn(given[1]);
    } catch (trouble) {
      setText($("sign-in-error"), trouble.message);
    }
  }
  let about;
  try {
    about = await get("api/about");
  } catch (trouble) {
    $("live-text").textContent = "not connected";
    if (trouble.status === 401) {
      open("sign-in");
      $("token").focus();
    } else {
      open("refused");
      setText($("refused-text"), trouble.message);
    }
    return;
  }
  pages = { overview: new Overview(about), jobs: new Jobs(about), job: new JobPage(about), workers: new Workers() };
  $("nav").hidden = false;
  $("sign-out").hidden = !about.signs_in;
  addEventListener("hashchange", (event) => route(event));
  await route(true);
  listen(show);
}

$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});

$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await signIn($("token").value.trim());
    location.reload();
  } catch (trouble) {
    setText($("sign-in-error"), trouble.message);
    $("token").select();
  }
});

$("sign-out").addEventListener("click", async () => {
  await post("session/end", {});
  location.reload();
});

await begin();

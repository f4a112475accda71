// All there is to know of one job.

import { get } from "./api.js";
import { $, announce, h, s, setText } from "./dom.js";
import { NOTHING, count, full, progress, span, value } from "./format.js";
import { showState, steer, verbOf } from "./jobs.js";

const OUTCOMES = { Succeeded: "succeeded", Failed: "failed", TimedOut: "failed", Cancelled: "cancelled", Lost: "failed" };

export class JobPage {
  constructor(about) {
    this.about = about;
    this.ident = null;
    this.shown = "";
    this.state = null;
  }

  async open(ident) {
    this.ident = ident;
    this.shown = "";
    this.state = null;
    $("job").replaceChildren(h("p", { class: "empty" }, "Looking it up …"));
    await this.refresh();
  }

  // With each picture, until it has ended.
  tick() {
    if (!document.hidden && !["succeeded", "failed", "cancelled", "gone"].includes(this.state)) this.refresh();
  }

  async refresh() {
    const ident = this.ident;
    let job;
    try {
      job = await get("api/job", { id: ident });
    } catch (trouble) {
      if (ident !== this.ident) return;
      if (this.shown) {  // what was last seen stays to be read
        this.state = trouble.status === 404 ? "gone" : this.state;
        return;
      }
      this.state = trouble.status === 404 ? "gone" : null;
      $("job").replaceChildren(h("h1", {}, "No such job"), h("p", { class: "notice" }, trouble.message));
      return;
    }
    if (ident !== this.ident) return;
    this.show(job);
    const { why, progress: far, ...lasting } = job;
    const said = JSON.stringify(lasting);
    if (said === this.shown) return;
    if (this.state !== null && this.state !== job.state) announce(`The job is ${job.state}`);
    this.shown = said;
    this.state = job.state;
    this.draw(job);
    this.show(job);
  }

  // What changes all the time is changed in place: who reads or selects the rest is left alone.
  show(job) {
    const why = $("job-why");
    if (why === null || this.shown === "") return;
    setText(why, job.why);
    why.hidden = !job.why;
    $("job-progress").hidden = !job.progress;
    if (job.progress) {
      const [bar, text] = $("job-progress").children;
      const known = Boolean(job.progress.total);
      if (known) bar.value = Math.min(1, job.progress.done / job.progress.total);
      else bar.removeAttribute("value");
      setText(text, progress(job.progress));
    }
    $("job-timeline").replaceChildren(...[timeline(job)].filter(Boolean));
  }

  draw(job) {
    const home = $("job");
    const focused = home.contains(document.activeElement) ? document.activeElement.id : null;
    const openTrace = $("traceback-box")?.open ?? true;
    const badge = h("span", { class: "in-line" });
    showState(badge, job);
    const verb = this.about.actions ? verbOf(job) : null;
    home.replaceChildren(...[
      h("div", { class: "job-head" },
        h("h1", {}, job.name, " ", badge),
        verb && h("button", { id: "steer", type: "button", class: verb === "retry" ? "primary" : "danger", on: {
          click: async () => { if (await steer(job)) await this.refresh(); },
        } }, verb === "retry" ? "Retry" : "Cancel")),
      h("p", { class: "code muted id" }, job.id),
      h("p", { class: "why", id: "job-why" }),
      h("p", { class: "progress-line", id: "job-progress" }, h("progress", { max: 1, "aria-label": "Progress" }), h("span", {})),
      h("div", { id: "job-timeline" }),
      h("div", { class: "columns" },
        panel("Facts", facts(job)),
        panel("Arguments", values(job.args))),
      job.result && panel("Result", h("pre", { tabindex: "0" }, value(job.result.value))),
      job.failure ? failure(job.failure, openTrace) : job.error && job.state !== "succeeded" ? panel("Error", h("pre", { class: "bad", tabindex: "0" }, job.error)) : null,
      panel("Attempts", attempts(job)),
      panel("Logs", logs(job)),
    ].filter(Boolean));
    if (focused) $(focused)?.focus();
  }
}

const panel = (head, ...inside) => h("div", { class: "panel" }, h("h2", {}, head), inside);

function facts(job) {
  const limits = [
    ["Queue", job.queue],
    ["Kept", job.stored ? "in the store" : "in memory"],
    ["Attempts", count(job.attempt)],
    ["Failures", job.failures],
    ["Lost with their process", job.losses || undefined],
    ["Priority", job.priority || undefined],
    ["Tags", job.tags.join(", ") || undefined],
    ["Once at most", job.once ? "yes" : undefined],
    ["Submitted", job.submitted && full(job.submitted)],
    ["Due", job.state === "scheduled" && job.due ? full(job.due) : undefined],
    ["Expires", job.expires && full(job.expires)],
    ["Last started", job.started && full(job.started)],
    ["Ended", job.ended && full(job.ended)],
    ["Kept until", job.kept_until && full(job.kept_until)],
  ];
  return h("dl", { class: "facts" }, limits
    .filter(([, one]) => one !== undefined && one !== null && one !== false)
    .map(([name, one]) => [h("dt", {}, name), h("dd", {}, String(one))]));
}

function values(args) {
  if (args === null || args === undefined) return h("p", { class: "empty" }, "They are not known any more.");
  const names = Object.entries(args);
  if (!names.length) return h("p", { class: "empty" }, "It takes none.");
  return h("dl", { class: "facts arguments" }, names.map(([name, one]) =>
    [h("dt", { class: "code" }, name), h("dd", {}, h("pre", { tabindex: "0" }, value(one)))]));
}

function failure(failed, open) {
  return panel("Error",
    h("p", { class: "bad strong" }, failed.message ? `${failed.type}: ${failed.message}` : failed.type),
    failed.notes?.map((note) => h("p", { class: "muted" }, note)),
    failed.traceback && h("details", { id: "traceback-box", open },
      h("summary", { id: "traceback-summary" }, "Traceback"),
      h("pre", { class: "traceback", tabindex: "0" }, failed.traceback)));
}

function attempts(job) {
  if (!job.attempts.length) {
    return h("p", { class: "empty" }, job.state === "running" ? "The first one runs."
      : job.stored && job.attempt ? "They ran where this dashboard does not look." : "None has ended yet.");
  }
  const elsewhere = job.stored && !job.attempts.some((one) => one.attempt === 1);
  return [elsewhere && h("p", { class: "muted" }, "Earlier ones ran where, or when, this dashboard did not look."),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Attempts" }, h("table", { class: "plain" },
    h("thead", {}, h("tr", {}, head("Attempt"), head("Outcome"), head("Then"), head("Worker", true), head("Started", true), head("Ran", true), head("Error"))),
    h("tbody", {}, job.attempts.map((one) => h("tr", {},
      h("th", { scope: "row" }, String(one.attempt)),
      h("td", {}, h("span", { class: `state ${OUTCOMES[one.outcome] ?? ""}` }, words(one.outcome))),
      h("td", {}, words(one.decision)),
      h("td", { class: "number" }, String(one.worker)),
      h("td", { class: "number" }, full(one.started)),
      h("td", { class: "number" }, span(one.seconds)),
      h("td", { class: "text" }, one.error ?? NOTHING))))))];
}

const head = (text, number) => h("th", { scope: "col", class: number ? "number" : null }, text);

function logs(job) {
  const { lines, more } = job.logs;
  if (!lines.length) {
    return h("p", { class: "empty" }, job.stored ? "It has logged nothing in this process; what it logs elsewhere is shown there." : "It has logged nothing.");
  }
  return [more > 0 && h("p", { class: "muted" }, `${count(more)} earlier ones are not kept.`),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Logs" }, h("table", { class: "plain" },
      h("thead", {}, h("tr", {}, head("Time", true), head("Level"), head("Logger"), head("Message"))),
      h("tbody", {}, lines.map((one) => h("tr", {},
        h("td", { class: "number" }, full(one.at)),
        h("td", { class: ["ERROR", "CRITICAL"].includes(one.level) ? "bad" : null }, one.level),
        h("td", { class: "code" }, one.logger),
        h("td", { class: "text lines" }, one.text))))))];
}

const words = (name) => String(name).replace(/(?<=[a-z])(?=[A-Z])/g, " ").toLowerCase();

// What became of its time: a bar from its submission to its end, or to now.
function timeline(job) {
  const begin = job.submitted ?? job.attempts[0]?.started ?? job.started;
  const end = job.ended ?? Date.now() / 1000;
  if (!begin || end <= begin) return null;
  const spans = job.attempts.map((one) => [one.started, one.started + one.seconds, OUTCOMES[one.outcome] ?? "failed", `attempt ${one.attempt}`]);
  if (job.started && (job.state === "running" || !spans.length)) spans.push([job.started, end, job.state === "running" ? "running" : job.state, `attempt ${job.attempt}`]);
  const place = (at) => Math.min(1000, Math.max(0, ((at - begin) / (end - begin)) * 1000));
  const ran = spans.reduce((total, [from, to]) => total + Math.max(0, Math.min(end, to) - from), 0);
  const said = `${span(end - begin)} since it was submitted, ${span(ran)} of it at work`;
  return h("figure", { class: "timeline" },
    s("svg", { viewBox: "0 0 1000 12", preserveAspectRatio: "none", role: "img", "aria-label": `Timeline: ${said}` },
      s("rect", { class: "track", width: 1000, height: 12 }),
      spans.map(([from, to, kind, name]) => s("rect", { class: `span ${kind}`, x: place(from), width: Math.max(3, place(to) - place(from)), height: 12 },
        s("title", {}, `${name}: ${span(to - from)}`)))),
    h("figcaption", {}, h("span", {}, full(begin)), h("span", {}, said), h("span", {}, job.ended ? full(job.ended) : "now")));
}

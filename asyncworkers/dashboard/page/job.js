// All there is to know of one job.

import { get } from "./api.js";
import { $, announce, h, s, setText } from "./dom.js";
import { NOTHING, clock, count, full, plural, progress, span, value } from "./format.js";
import { showState, steer, verbOf } from "./jobs.js";

const OUTCOMES = { Succeeded: "succeeded", Failed: "failed", TimedOut: "failed", Cancelled: "cancelled", Lost: "failed" };

export class JobPage {
  constructor(about) {
    this.about = about;
    this.ident = null;
    this.shown = "";
    this.state = null;
    this.after = 0;
    this.log = new Log();
  }

  async open(ident) {
    this.ident = ident;
    this.shown = "";
    this.state = null;
    this.after = 0;
    this.log = new Log();
    $("job").replaceChildren(h("p", { class: "empty" }, "Looking it up …"));
    await this.refresh();
  }

  // With each picture, until it has ended; and a little longer, for the last words of the log.
  tick() {
    if (document.hidden) return;
    if (!["succeeded", "failed", "cancelled", "gone"].includes(this.state)) this.after = 3;
    else if (this.after-- <= 0) return;
    this.refresh();
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
    const { why, progress: far, log, ...lasting } = job;
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
    this.log.show(job.log);
  }

  draw(job) {
    const home = $("job");
    const focused = home.contains(document.activeElement) ? document.activeElement.id : null;
    const openTrace = $("traceback-box")?.open ?? true;
    const { scrollTop } = this.log.box;  // which is lost when it is taken out and put back
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
      panel("Attempts", attempts(job), note(job.attempts_note)),
      panel("Log", this.log.element, note(job.log_note)),
    ].filter(Boolean));
    this.log.box.scrollTop = scrollTop;
    if (focused) $(focused)?.focus();
  }
}

const note = (text) => text && h("p", { class: "notice" }, text);

const LEVELS = { DEBUG: "debug", INFO: "info", WARNING: "warning", ERROR: "error", CRITICAL: "error" };

// What the job said: lines are added below and taken away above, the others are left alone.
class Log {
  constructor() {
    this.first = 0;
    this.last = 0;
    this.empty = h("p", { class: "empty" }, "Nothing was logged that is known here.");
    this.dropped = h("p", { class: "notice" });
    this.list = h("ol", {});
    this.box = h("div", { class: "log", tabindex: "0", role: "region", "aria-label": "Log" }, this.list);
    this.element = h("div", {}, this.empty, this.dropped, this.box);
  }

  show({ lines, dropped }) {
    this.empty.hidden = lines.length + dropped > 0;
    this.box.hidden = lines.length === 0;
    this.dropped.hidden = dropped === 0;
    setText(this.dropped, `${plural(dropped, "earlier record")} ${dropped === 1 ? "is" : "are"} not kept.`);
    if (lines.length === 0) this.list.replaceChildren();
    else {
      while (this.list.firstElementChild && this.first < lines[0].number) {
        this.list.firstElementChild.remove();
        this.first += 1;
      }
      // Who has scrolled up to read stays where they are; who has not sees the end.
      const atEnd = this.box.scrollTop + this.box.clientHeight >= this.box.scrollHeight - 8;
      for (const line of lines) {
        if (line.number <= this.last) continue;
        if (!this.list.firstElementChild) this.first = line.number;
        this.list.append(said(line));
        this.last = line.number;
      }
      if (atEnd) this.box.scrollTop = this.box.scrollHeight;
    }
  }
}

function said(line) {
  return h("li", { class: LEVELS[line.level] ?? null },
    h("span", { class: "when", title: full(line.at) }, clock(line.at)),
    h("span", { class: "level" }, line.level),
    h("span", { class: "what" }, h("span", { class: "by" }, line.logger, line.attempt > 1 && `, attempt ${line.attempt}`),
      h("pre", {}, line.logged), line.traceback && h("pre", { class: "bad" }, line.traceback)));
}

const panel = (head, ...inside) => h("div", { class: "panel" }, h("h2", {}, head), inside);

function facts(job) {
  const limits = [
    ["Queue", job.queue],
    ["Kept", job.stored ? "in the store" : "in memory"],
    ["Attempts", count(job.attempt)],
    ["Failed and tried again", job.failures || undefined],
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

const ATTEMPT = ["Attempt", "Outcome", "Then", "Worker", "Started", "Ran", "Error"];
const KINDS = ["title", null, null, "number", "number", "number", "text wide"];

function attempts(job) {
  if (!job.attempts.length) {
    return h("p", { class: "empty" }, job.attempts_note ? "None is known here."
      : job.state === "running" ? "The first one runs." : "None has ended yet.");
  }
  // Roles are said again, for on a narrow screen rows are drawn as cards.
  const row = (cells) => h("tr", { role: "row" }, cells);
  const head = (name, index) => h("th", { role: "columnheader", scope: "col", class: KINDS[index] === "number" && "number" }, name);
  const cell = (inside, index) => h(index ? "td" : "th", {
    role: index ? "cell" : "rowheader", scope: index ? null : "row", class: KINDS[index], "data-label": ATTEMPT[index],
  }, inside);
  const cells = (one) => [
    String(one.attempt), h("span", { class: `state ${OUTCOMES[one.outcome] ?? ""}` }, words(one.outcome)), words(one.decision),
    String(one.worker ?? NOTHING), full(one.started), span(one.seconds), one.error ?? NOTHING,
  ].map(cell);
  return h("div", { class: "scroll attempts", tabindex: "0", role: "region", "aria-label": "Attempts" }, h("table", { role: "table" },
    h("thead", { role: "rowgroup" }, row(ATTEMPT.map(head))),
    h("tbody", { role: "rowgroup" }, job.attempts.map((one) => row(cells(one))))));
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

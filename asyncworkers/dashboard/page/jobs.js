// The list of jobs, with filters and pages.

import { act, get } from "./api.js";
import { $, announce, ask, h, setAttribute, setText } from "./dom.js";
import { NOTHING, count, full, moment, plural, progress, span } from "./format.js";
import { done, showJob } from "./overview.js";
import { Table } from "./table.js";

const FIELDS = ["state", "queue", "name", "tag"];

export class Jobs {
  constructor(about) {
    this.filters = {};
    this.pages = [null];  // what each page began after
    this.after = null;
    this.busy = false;
    this.refreshed = 0;
    this.table = new Table($("jobs"), {
      caption: "Jobs",
      key: (job) => job.id,
      empty: "There are no such jobs.",
      columns: [
        { head: "Job", kind: "title", show: showJob },
        { head: "State", show: showState },
        { head: "Queue", text: (job) => job.queue },
        { head: "Attempt", number: true, text: (job) => count(job.attempt) },
        { head: "Submitted", number: true, show: (cell, job) => {
          setText(cell, moment(job.submitted));
          if (job.submitted) cell.title = full(job.submitted);
        } },
        { head: "Took", number: true, text: (job) => took(job) },
        { head: "What", kind: "text", wide: true, show: showWhat },
        about.actions ? { head: "", label: "Actions", kind: "actions", show: showActions } : null,
      ].filter(Boolean),
    });
    const form = $("filters");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.go(Object.fromEntries(new FormData(form)));
    });
    form.addEventListener("reset", (event) => {
      event.preventDefault();
      this.go({});
    });
    form.addEventListener("change", (event) => {
      if (event.target.tagName === "SELECT") form.requestSubmit();
    });
    $("older").addEventListener("click", () => this.turn(() => this.pages.push(this.after)));
    $("newer").addEventListener("click", () => this.turn(() => this.pages.pop()));
  }

  // The filters are in the address, so that a page can be linked, and gone back to.
  go(filters) {
    const chosen = new URLSearchParams(FIELDS.filter((one) => filters[one]).map((one) => [one, filters[one].trim()]));
    location.hash = chosen.size ? `#/jobs?${chosen}` : "#/jobs";
  }

  async open(query) {
    this.filters = Object.fromEntries(FIELDS.map((one) => [one, query.get(one) ?? ""]));
    for (const one of FIELDS) {
      const field = $("filters").elements[one];
      if (one === "queue" && ![...field.options].some((option) => option.value === this.filters.queue)) {
        field.append(h("option", {}, this.filters.queue));
      }
      field.value = this.filters[one];
    }
    this.pages = [null];
    await this.refresh();
    announce(this.said());
  }

  async turn(change) {
    change();
    await this.refresh();
    announce(this.said());
    $("main").scrollIntoView({ block: "start" });
  }

  said() {
    return `Page ${this.pages.length}: ${plural(this.shown ?? 0, "job")}`;
  }

  // With each picture, while the first page is looked at; what is further down should not move.
  tick(picture) {
    const known = new Set([...$("filter-queue").options].map((option) => option.value));
    for (const queue of picture.queues) {
      if (!known.has(queue.name)) $("filter-queue").append(h("option", {}, queue.name));
    }
    if (this.pages.length === 1 && !document.hidden && performance.now() - this.refreshed > 1900) this.refresh();
  }

  async refresh() {
    const asked = JSON.stringify([this.filters, this.pages]);
    if (this.busy === asked) return;
    this.busy = asked;
    try {
      const page = await get("api/jobs", { ...this.filters, after: this.pages.at(-1) });
      if (this.busy !== asked) return;
      this.refreshed = performance.now();
      this.after = page.after;
      this.shown = page.jobs.length;
      this.table.update(page.jobs);
      setText($("jobs-note"), page.note);
      $("jobs-note").hidden = !page.note;
      $("older").disabled = page.after === null;
      $("newer").disabled = this.pages.length === 1;
      setText($("page-number"), `Page ${this.pages.length}`);
    } catch (trouble) {
      if (trouble.status === 422) {  // a filter that makes no sense: what is shown was the answer to another
        this.shown = 0;
        this.table.update([]);
      }
      setText($("jobs-note"), trouble.message);
      $("jobs-note").hidden = false;
    } finally {
      if (this.busy === asked) this.busy = false;
    }
  }
}

export function showState(cell, job, old) {
  if (!old) cell.append(h("span", {}));
  const badge = cell.firstChild;
  setAttribute(badge, "class", `state ${job.state}`);
  setText(badge, job.cancelling && job.state === "running" ? "stopping" : job.state);
}

const took = (job) => {
  if (!job.started || (job.state !== "running" && !job.ended)) return NOTHING;
  return span(Math.max(0, (job.ended ?? Date.now() / 1000) - job.started));
};

function showWhat(cell, job) {
  const waits = job.state === "scheduled" && job.due ? `due at ${moment(job.due)}` : "";
  const tags = job.tags.map((tag) => `#${tag}`).join(" ");
  const said = [progress(job.progress), waits, job.error, tags].filter(Boolean).join("; ");
  setText(cell, said || NOTHING);
  cell.classList.toggle("bad", job.state === "failed");
}

const may = (job) => ["scheduled", "queued", "running"].includes(job.state) ? "cancel"
  : job.stored && ["failed", "cancelled"].includes(job.state) ? "retry" : null;

function showActions(cell, job, old, now) {
  if (!old) cell.append(h("button", { type: "button", class: "small", on: { click: () => steer(now()) } }));
  const button = cell.firstChild;
  const verb = may(job);
  button.hidden = verb === null;
  const word = verb === "retry" ? "Retry" : "Cancel";
  setText(button, word);
  setAttribute(button, "aria-label", `${word} ${job.name} ${job.id}`);
}

// Cancels or retries a job, whichever it can be; true if that was done.
export async function steer(job) {
  const verb = may(job);
  if (verb === null) return false;
  const asked = verb === "retry" ? `Run ${job.name} ${job.id} once more?` : `Cancel ${job.name} ${job.id}?`;
  if (!await ask(asked, { yes: verb === "retry" ? "Retry" : "Cancel the job" })) return false;
  return done(() => act(verb, job.id));
}

export const verbOf = may;

// What every worker and every child process is at.

import { $, h, setText } from "./dom.js";
import { NOTHING, bytes, count, plural, progress, span } from "./format.js";
import { Table } from "./table.js";

function showLink(cell, id, name) {
  const key = `${id} ${name}`;
  if (cell.dataset.shown === key) return;
  cell.dataset.shown = key;
  cell.replaceChildren();
  if (name === null) cell.append(NOTHING);
  else if (id === null) cell.append(name, h("span", { class: "sub" }, "item of a stream"));
  else cell.append(h("a", { href: `#/job/${encodeURIComponent(id)}` }, name), h("span", { class: "sub code" }, id));
}

export class Workers {
  constructor() {
    this.workers = new Table($("workers"), {
      caption: "Workers at work",
      key: (worker) => `${worker.queue}/${worker.worker ?? worker.job_id}`,
      empty: "Nothing runs at the moment.",
      columns: [
        { head: "Worker", kind: "title", text: (worker) => worker.worker === null ? worker.queue : `${worker.queue} ${worker.worker}` },
        { head: "Job", show: (cell, worker) => showLink(cell, worker.job_id, worker.job_name) },
        { head: "Attempt", number: true, text: (worker) => count(worker.attempt) },
        { head: "For", number: true, text: (worker) => span(worker.seconds) },
        { head: "Progress", kind: "text", wide: true, show: showProgress },
        { head: "Process", number: true, text: (worker) => worker.pid ?? NOTHING },
      ],
    });
    this.children = new Table($("children"), {
      caption: "Child processes",
      key: (child) => `${child.queue}/${child.worker}`,
      empty: "There are no child processes at the moment.",
      columns: [
        { head: "Child", kind: "title", text: (child) => `${child.queue} ${child.worker}` },
        { head: "Runs", show: (cell, child) => child.job_name === null
          ? (delete cell.dataset.shown, setText(cell, child.ready ? "idle" : "starting"))
          : showLink(cell, child.job_id, child.job_name) },
        { head: "Process", number: true, text: (child) => child.pid },
        { head: "Memory", number: true, text: (child) => bytes(child.memory) },
        { head: "Jobs done", number: true, text: (child) => count(child.jobs) },
        { head: "Sent ahead", number: true, text: (child) => count(child.sent) },
      ],
    });
  }

  show(picture) {
    this.workers.update(picture.workers);
    $("more-workers").hidden = !picture.more_workers;
    this.children.update(picture.children);
  }
}

function showProgress(cell, worker, old) {
  if (!old) cell.append(h("progress", { max: 1, "aria-label": "Progress" }), h("span", {}));
  const [bar, text] = cell.children;
  const said = worker.progress;
  const known = Boolean(said && said.total);
  bar.hidden = !known;
  if (known) bar.value = Math.min(1, said.done / said.total);
  const waits = worker.waits_for.length ? `lends its slot while it awaits ${plural(worker.waits_for.length, "job")}` : "";
  setText(text, [progress(said), waits].filter(Boolean).join("; ") || NOTHING);
}

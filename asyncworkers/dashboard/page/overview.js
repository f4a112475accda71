// The first page: figures, queues, what failed, what stalled.

import { act } from "./api.js";
import { $, ask, h, s, setAttribute, setText, toast } from "./dom.js";
import { NOTHING, count, moment, plural, rate, span } from "./format.js";
import { Table } from "./table.js";

const WIDTH = 120;
const HEIGHT = 24;

function sparkline() {
  const area = s("path", { class: "area" });
  const line = s("path", { class: "line" });
  const svg = s("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, area, line);
  svg.draw = (history, what) => {
    const most = Math.max(...history, 0);
    const top = most || 1;
    const step = WIDTH / Math.max(1, history.length - 1);
    const points = history.map((one, index) =>
      `${(index * step).toFixed(1)},${(HEIGHT - 1.5 - (one / top) * (HEIGHT - 4)).toFixed(1)}`);
    const path = points.length > 1 ? `M${points.join("L")}` : `M0,${HEIGHT - 1.5}L${WIDTH},${HEIGHT - 1.5}`;
    setAttribute(line, "d", path);
    svg.classList.toggle("flat", most === 0);
    setAttribute(area, "d", `${path}L${WIDTH},${HEIGHT}L0,${HEIGHT}Z`);
    setAttribute(svg, "aria-label", `${what} ended in a second, over the last minute: at most ${rate(most)}`);
  };
  return svg;
}

const figures = [
  ["rate", "Ended per second"],
  ["running", "Running"],
  ["waiting", "Waiting"],
  ["scheduled", "Scheduled"],
  ["oldest", "Waiting longest"],
  ["failed", "Failed"],
];

function percentiles(cell, times) {
  const said = times === null || times === undefined ? NOTHING
    : `${span(times.p50)} / ${span(times.p95)} / ${span(times.p99)}`;
  setText(cell, said);
}

export class Overview {
  constructor(about) {
    this.tiles = new Map();
    for (const [key, label] of figures) {
      const value = h("span", { class: "value" }, NOTHING);
      const more = h("span", { class: "more" });
      const spark = key === "rate" ? sparkline() : null;
      $("tiles").append(h("div", { class: "tile", "data-tile": key },
        h("dt", {}, label), h("dd", {}, value, spark, more)));
      this.tiles.set(key, { value, more, spark });
    }
    this.queues = new Table($("queues"), {
      caption: "Queues",
      key: (queue) => queue.name,
      empty: "No queue has anything to do, or ever had.",
      columns: [
        { head: "Queue", kind: "title", show: showQueue },
        { head: "Ended/s", number: true, show: showRate },
        { head: "Running", number: true, show: showRunning },
        { head: "Waiting", number: true, show: (cell, queue) => {
          const unknown = Object.values(queue.unknown ?? {}).reduce((sum, one) => sum + one, 0);
          setText(cell, count(queue.waiting) + (unknown ? ` (${count(unknown)} unknown)` : ""));
          cell.title = unknown ? `nothing open here runs ${Object.keys(queue.unknown).join(", ")}` : "";
        } },
        { head: "Oldest", number: true, text: (queue) => span(queue.oldest) },
        { head: "Scheduled", number: true, text: (queue) => count(queue.scheduled) },
        { head: "Failed", number: true, show: showFailed },
        { head: "Waited p50 / p95 / p99", number: true, wide: true, show: (cell, queue) => percentiles(cell, queue.wait) },
        { head: "Ran p50 / p95 / p99", number: true, wide: true, show: (cell, queue) => percentiles(cell, queue.run) },
        about.actions ? { head: "", label: "Actions", kind: "actions", show: showActions } : null,
      ].filter(Boolean),
    });
    this.failures = new Table($("failures"), {
      caption: "Jobs that failed last",
      key: (job) => job.id,
      empty: "Nothing has failed.",
      columns: [
        { head: "Job", kind: "title", show: showJob },
        { head: "Error", kind: "text", wide: true, text: (job) => job.error ?? NOTHING },
        { head: "Ended", number: true, text: (job) => moment(job.ended) },
      ],
    });
    this.stalls = new Table($("stalls"), {
      caption: "Stalls of the event loop",
      key: (stall) => `${stall.at}-${stall.file}-${stall.line}`,
      empty: about.live === false ? "Stalls are seen where jobs run, not in a store." : "The event loop was never held up.",
      columns: [
        { head: "Job", kind: "title", show: (cell, stall, old) => {
          if (old) return;
          const name = stall.job_name ?? "no job of ours";
          cell.append(stall.job_id ? h("a", { href: `#/job/${encodeURIComponent(stall.job_id)}` }, name) : name);
        } },
        { head: "Place", kind: "text code", wide: true, text: (stall) => `${stall.file}:${stall.line} in ${stall.function}` },
        { head: "For", number: true, text: (stall) => span(stall.seconds) + (stall.held_gil ? ", holding the GIL" : "") },
        { head: "At", number: true, text: (stall) => moment(stall.at) },
      ],
    });
  }

  show(picture) {
    const sum = (key) => picture.queues.reduce((total, queue) => total + (queue[key] ?? 0), 0);
    const ages = picture.queues.map((queue) => queue.oldest).filter((one) => one !== null);
    const workers = picture.queues.reduce((total, queue) => total + (queue.workers ?? 0), 0);
    const dead = picture.queues.reduce((total, queue) => total + (queue.dead ?? queue.failed ?? 0), 0);
    const history = picture.queues.reduce((total, queue) =>
      queue.history.map((one, index) => one + (total[index] ?? 0)).concat(total.slice(queue.history.length)), []);
    const tile = (key, value, more = "") => {
      setText(this.tiles.get(key).value, value);
      setText(this.tiles.get(key).more, more);
    };
    tile("rate", rate(sum("rate")));
    this.tiles.get("rate").spark.draw(history, "jobs");
    tile("running", count(sum("running")), workers ? `of ${count(workers)}` : "");
    tile("waiting", count(sum("waiting")));
    tile("scheduled", count(sum("scheduled")));
    tile("oldest", ages.length ? span(Math.max(...ages)) : NOTHING);
    tile("failed", count(dead));
    this.tiles.get("failed").value.classList.toggle("bad", dead > 0);
    this.queues.update(picture.queues);
    this.failures.update(picture.failures);
    this.stalls.update(picture.stalls);
  }
}

export function showJob(cell, job, old) {
  if (old) return;
  cell.append(h("a", { href: `#/job/${encodeURIComponent(job.id)}` }, job.name),
    h("span", { class: "sub code" }, job.id));
}

function showQueue(cell, queue, old) {
  if (!old) {
    cell.append(h("a", { href: `#/jobs?queue=${encodeURIComponent(queue.name)}` }, queue.name),
      h("span", { class: "badge" }), h("span", { class: "badge warn", hidden: true }, "paused"));
  }
  const [, kind, paused] = cell.children;
  setText(kind, queue.stored && queue.kind !== "stored" ? `${queue.kind}, stored` : queue.kind);
  paused.hidden = !queue.paused;
}

function showRate(cell, queue, old) {
  if (!old) cell.append(sparkline(), h("span", {}));
  cell.firstChild.draw(queue.history, `jobs of ${queue.name}`);
  setText(cell.lastChild, rate(queue.rate));
}

function showRunning(cell, queue, old) {
  if (!old) {
    cell.append(h("span", {}), s("svg", { class: "meter", viewBox: "0 0 60 4", preserveAspectRatio: "none", "aria-hidden": "true" },
      s("rect", { class: "track", width: 60, height: 4, rx: 2 }), s("rect", { class: "fill", width: 0, height: 4, rx: 2 })));
  }
  const [text, meter] = cell.children;
  const lent = queue.lent ? `, ${queue.lent} lent` : "";
  setText(text, queue.workers === null ? count(queue.running) : `${count(queue.running)} of ${count(queue.workers)}${lent}`);
  meter.toggleAttribute("hidden", queue.workers === null);
  const part = queue.workers ? Math.min(1, queue.running / queue.workers) : 0;
  setAttribute(meter.lastChild, "width", Math.round(part * 60));
}

function showFailed(cell, queue) {
  const failed = queue.dead ?? queue.failed ?? 0;
  setText(cell, count(failed));
  cell.classList.toggle("bad", failed > 0);
}

function showActions(cell, queue, old, now) {
  if (!old) {
    cell.append(
      h("button", { type: "button", class: "small", on: { click: () => pause(now()) } }),
      h("button", { type: "button", class: "small", "aria-label": `Resize ${queue.name}`, on: { click: () => resize(now()) } }, "Resize"));
  }
  const [hold, size] = cell.children;
  setText(hold, queue.paused ? "Resume" : "Pause");
  setAttribute(hold, "aria-label", `${queue.paused ? "Resume" : "Pause"} ${queue.name}`);
  size.hidden = queue.workers === null;
}

async function pause(queue) {
  const everywhere = queue.stored ? " in all processes" : "";
  if (!queue.paused && !await ask(`Start no more jobs of queue ${queue.name}${everywhere}? What runs runs on.`, { yes: "Pause" })) return;
  await done(() => act(queue.paused ? "resume" : "pause", queue.name));
}

async function resize(queue) {
  const workers = await ask(`How many jobs of queue ${queue.name} may run at once?`, { yes: "Resize", number: queue.workers });
  if (workers !== null) await done(() => act("resize", queue.name, workers));
}

export async function done(deed) {
  try {
    toast((await deed()).message);
    return true;
  } catch (trouble) {
    toast(trouble.message, "bad");
    return false;
  }
}

// Figures and dates as people read them.

const whole = new Intl.NumberFormat("en");
const oneDigit = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const NOTHING = "–";

export const count = (number) =>
  number === null || number === undefined ? NOTHING
    : Math.abs(number) >= 100000 ? short.format(number) : whole.format(number);

export const rate = (number) =>
  number >= 100 ? count(Math.round(number)) : oneDigit.format(number ?? 0);

// A duration in seconds.
export function span(seconds) {
  if (seconds === null || seconds === undefined) return NOTHING;
  if (seconds < 0.00095) return seconds <= 0 ? "0 s" : `${Math.max(1, Math.round(seconds * 1e6))} µs`;
  if (seconds < 0.01) return `${(seconds * 1e3).toFixed(1)} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1e3)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  const parts = [[86400, "d", 3600, "h"], [3600, "h", 60, "m"], [60, "m", 1, "s"]];
  for (const [unit, name, smaller, small] of parts) {
    if (seconds >= unit) {
      const rest = Math.floor((seconds % unit) / smaller);
      return rest ? `${Math.floor(seconds / unit)} ${name} ${rest} ${small}`
        : `${Math.floor(seconds / unit)} ${name}`;
    }
  }
  return `${Math.round(seconds)} s`;
}

export function bytes(number) {
  if (number === null || number === undefined) return NOTHING;
  return number >= 1e9 ? `${(number / 1e9).toFixed(2)} GB` : `${(number / 1e6).toFixed(1)} MB`;
}

const finest = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3,
});
const clockForm = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const dateForm = new Intl.DateTimeFormat("en-CA", { dateStyle: "short", timeStyle: "medium", hourCycle: "h23" });

// A moment: the time of today, the date of other days.
export function moment(at) {
  if (at === null || at === undefined) return NOTHING;
  const date = new Date(at * 1000);
  if (Number.isNaN(date.getTime())) return String(at);
  return date.toDateString() === new Date().toDateString() ? clockForm.format(date) : full(at);
}

// The time of day, with milliseconds.
export function clock(at) {
  const date = new Date(at * 1000);
  return Number.isNaN(date.getTime()) ? String(at) : finest.format(date);
}

export function full(at) {
  const date = new Date(at * 1000);
  return Number.isNaN(date.getTime()) ? String(at) : dateForm.format(date).replace(",", "");
}

export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

export function progress(said) {
  if (!said) return "";
  const total = said.total === null ? "" : ` of ${oneDigit.format(said.total)}`;
  return `${oneDigit.format(said.done)}${total}${said.message ? `, ${said.message}` : ""}`;
}

// A value as it would be written in Python, a line for each part of what does not fit on one.
export function value(given, indent = "") {
  if (given === null) return "None";
  if (given === true) return "True";
  if (given === false) return "False";
  if (typeof given === "string") return given === "***" ? given : `"${given}"`;
  if (typeof given !== "object") return String(given);
  const deeper = `${indent}  `;
  const list = Array.isArray(given);
  const parts = list ? given.map((one) => value(one, deeper))
    : Object.entries(given).map(([name, one]) => `${name}: ${value(one, deeper)}`);
  const [open, close] = list ? ["[", "]"] : ["{", "}"];
  const line = `${open}${parts.join(", ")}${close}`;
  if (line.length <= 76 && !line.includes("\n")) return line;
  return `${open}\n${parts.map((one) => deeper + one).join(",\n")}\n${indent}${close}`;
}

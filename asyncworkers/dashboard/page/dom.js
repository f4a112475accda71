// Makes elements. Whatever comes from a job goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") {
      for (const [event, heard] of Object.entries(value)) element.addEventListener(event, heard);
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);

export const s = (tag, props, ...children) =>
  fill(document.createElementNS(SVG, tag), props, children);

export function setText(element, text) {
  const said = String(text ?? "");
  if (element.textContent !== said) element.textContent = said;
}

export function setAttribute(element, name, value) {
  const said = String(value);
  if (element.getAttribute(name) !== said) element.setAttribute(name, said);
}

let last = "";

// Tells who listens to the page instead of seeing it.
export function announce(text) {
  if (text === last) return;
  last = text;
  setText($("announcer"), text);
}

let hiding = 0;

// Says what came of an action, for everybody.
export function toast(text, kind = "good") {
  const box = $("toast");
  box.dataset.kind = kind;
  setText(box, text);
  box.hidden = false;
  last = "";
  announce(text);
  clearTimeout(hiding);
  hiding = setTimeout(() => { box.hidden = true; }, 6000);
}

let answer = () => {};

// Asks before something is done; with a number if one is given. Resolves to null, true or the number.
// That a dialog was closed is told a moment later, when the next question may be open already.
export function ask(text, { yes = "Do it", number } = {}) {
  const dialog = $("dialog");
  const field = $("dialog-number");
  setText($("dialog-text"), text);
  setText($("dialog-yes"), yes);
  $("dialog-label").hidden = number === undefined;
  field.required = number !== undefined;
  field.disabled = number === undefined;
  field.value = number ?? "";
  answer(null);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    answer = resolve;
    dialog.onclose = () => {
      if (dialog.open) return;
      if (dialog.returnValue !== "yes") resolve(null);
      else resolve(number === undefined ? true : Number(field.value));
    };
  });
}

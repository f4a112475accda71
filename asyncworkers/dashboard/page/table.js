// A table that changes as little as it can: rows keep their place, their focus and what is selected.

import { h, setText } from "./dom.js";

// columns: { head, text(row) | show(cell, row, old), number, wide, label }
export class Table {
  constructor(home, { caption, columns, key, empty }) {
    this.columns = columns;
    this.key = key;
    this.rows = new Map();
    this.body = h("tbody", { role: "rowgroup" });
    this.empty = h("p", { class: "empty" }, empty);
    // Roles are said again, for on a narrow screen rows are drawn as cards.
    this.table = h("table", { role: "table" },
      h("caption", { class: "unseen" }, caption),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, columns.map((column) =>
        h("th", { role: "columnheader", scope: "col", class: column.number ? "number" : null },
          column.label ? h("span", { class: "unseen" }, column.label) : column.head)))),
      this.body);
    this.table.hidden = true;
    home.append(h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, this.table), this.empty);
  }

  update(data) {
    this.table.hidden = data.length === 0;
    this.table.parentElement.hidden = data.length === 0;
    this.empty.hidden = data.length > 0;
    const kept = new Set();
    let place = this.body.firstElementChild;
    for (const row of data) {
      const key = this.key(row);
      if (kept.has(key)) continue;
      kept.add(key);
      let line = this.rows.get(key);
      if (line === undefined) {
        line = this.make(key);
        this.rows.set(key, line);
      }
      this.show(line, row);
      if (line.element === place) place = place.nextElementSibling;
      else this.body.insertBefore(line.element, place);
    }
    for (const [key, line] of this.rows) {
      if (!kept.has(key)) {
        line.element.remove();
        this.rows.delete(key);
      }
    }
  }

  make(key) {
    const cells = this.columns.map((column, index) =>
      h(index === 0 ? "th" : "td", {
        role: index === 0 ? "rowheader" : "cell",
        scope: index === 0 ? "row" : null,
        class: [column.number && "number", column.wide && "wide", column.kind].filter(Boolean).join(" ") || null,
        "data-label": column.head,
      }));
    return { element: h("tr", { role: "row", "data-key": key }, cells), cells, row: null };
  }

  show(line, row) {
    const old = line.row;
    line.row = row;
    this.columns.forEach((column, index) => {
      const cell = line.cells[index];
      if (column.show) column.show(cell, row, old, () => line.row);
      else setText(cell, column.text(row));
      if (column.number) cell.classList.toggle("zero", cell.textContent === "0" || cell.textContent === "–");
    });
  }
}

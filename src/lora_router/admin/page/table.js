// Tables whose rows have keys: only cells that changed are touched.

class Table {
  // Each column: {name, text(row), kind?(row), title?(row), numeric?, badge?}. `open` is called with a row.
  constructor(section, columns, open) {
    this.columns = columns;
    this.body = $("tbody", section);
    this.rows = new Map();
    this.given = new Map();
    const head = $("thead tr", section);
    for (const column of columns) {
      head.append(column.sort
        ? el("th", { scope: "col", class: column.numeric && "numeric", "data-name": column.name },
          el("button", { type: "button", class: "sort", onclick: () => column.sort(column) }, column.name))
        : el("th", { scope: "col", class: column.numeric && "numeric" }, column.name));
    }
    this.head = head;
    if (open) {
      this.body.addEventListener("click", (event) => {
        const line = event.target.closest("tr");
        if (line) open(this.given.get(line), line);
      });
      this.settle = roving(this.body, "tr");
    } else this.settle = () => {};
    this.opens = Boolean(open);
  }

  show(rows) {
    const lines = [];
    const seen = new Set();
    for (const row of rows) {
      seen.add(row.key);
      let line = this.rows.get(row.key);
      if (!line) {
        line = this.line();
        this.rows.set(row.key, line);
      }
      this.given.set(line, row);
      this.fill(line, row);
      lines.push(line);
    }
    for (const [key, line] of this.rows) {
      if (seen.has(key)) continue;
      this.rows.delete(key);
      this.given.delete(line);
    }
    arrange(this.body, lines);
    this.settle();
  }

  line() {
    return el("tr", { role: "row", tabindex: this.opens ? "-1" : null },
      ...this.columns.map((column) => el("td", {
        role: "cell", class: column.numeric && "numeric", "data-name": column.name,
      }, column.badge ? el("span", { class: "badge" }) : null)));
  }

  fill(line, row) {
    this.columns.forEach((column, index) => {
      const cell = line.children[index];
      const text = column.text(row);
      const target = column.badge ? cell.firstElementChild : cell;
      put(target, text);
      if (column.kind) mark(target, "data-kind", column.kind(row) || null);
      if (column.title) mark(cell, "title", column.title(row) || null);
    });
  }
}

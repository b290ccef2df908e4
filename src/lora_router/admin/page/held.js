// Requests that wait: for how long, for what.

class Held {
  constructor(open) {
    this.section = $("#held");
    this.list = $(".waiting", this.section);
    this.lines = new Map();
    this.settle = roving(this.list, "button");
    this.list.addEventListener("click", (event) => {
      const line = event.target.closest("li");
      const row = line && parts.held.rows.get(line.dataset.key);
      if (row) open(row);
    });
  }

  show() {
    const part = parts.held;
    if (!part.known) return;
    const now = routerNow(part);
    const rows = heldRows();
    const used = [];
    for (const row of rows) {
      let line = this.lines.get(row.key);
      if (!line) {
        line = this.line(row);
        this.lines.set(row.key, line);
      }
      this.fill(line, row, now);
      used.push(line.item);
    }
    for (const key of this.lines.keys()) if (!part.rows.has(key)) this.lines.delete(key);
    arrange(this.list, used);
    this.settle();
    const all = rows.length + part.more;
    put($(".count", this.section), number(all));
    note(this.section, part.error || (!all ? "No request waits for a slot." : part.more ? `${number(part.more)} more are not shown.` : ""));
  }

  line(row) {
    const time = el("span", { class: "time" });
    const model = el("span", { class: "model" });
    const why = el("span", { class: "why" });
    const item = el("li", { "data-key": row.key }, el("button", { type: "button", tabindex: "-1" }, model, time, why));
    return { item, time, model, why };
  }

  fill(line, row, now) {
    const long = now - row.since;
    put(line.time, waited(long));
    mark(line.time, "data-kind", long > 10 ? "bad" : long > 2 ? "doubt" : null);
    put(line.model, row.model);
    put(line.why, [
      row.reason,
      row.closing ? `closing ${row.closing.adapter} on ${row.closing.pod}` : null,
      row.wanted ? `wants a slot on ${row.wanted}` : null,
      parts.routers.rows.size > 1 ? row.router : null,
    ].filter(Boolean).join(" · "));
  }
}

// The oldest first. `seconds` was true when the row was sent.
function heldRows() {
  const rows = [...parts.held.rows.values()];
  for (const row of rows) row.since ??= row.receivedAt - row.seconds;
  return rows.sort((a, b) => a.since - b.since);
}

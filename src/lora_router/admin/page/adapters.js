// Adapters by traffic, hits and misses, and times.

class Adapters {
  constructor(open) {
    this.section = $("#adapters");
    const sort = (column) => { this.by = column; this.show(); };
    const columns = [
      { name: "Adapter", text: (row) => row.name, title: (row) => row.name },
      { name: "Base model", text: (row) => row.base_model },
      { name: "Running on", text: (row) => where(row.running), title: (row) => row.running.join(", ") },
      { name: "Listed by", text: (row) => where(row.listed_on, row.listed), title: (row) => row.listed_on.join(", ") },
      { name: "In memory on", text: (row) => where(inMemory(row)), title: (row) => inMemory(row).join(", ") },
      { name: "As declared", text: asDeclared, title: whyNot, kind: (row) => row.failing.length ? "slow" : null },
      { name: "Held", value: (row) => row.held, text: (row) => row.held ? number(row.held) : "", kind: (row) => row.held ? "held" : null },
      { name: "In flight", value: (row) => row.in_flight, text: (row) => number(row.in_flight) },
      { name: "Requests", value: (row) => row.requests, text: (row) => number(row.requests) },
      { name: "Hits", value: (row) => row.hits, text: (row) => row.hits + row.misses ? percent(row.hits / (row.hits + row.misses)) : "–", title: (row) => `${number(row.hits)} of ${number(row.hits + row.misses)}` },
      { name: "Misses", value: (row) => row.misses, text: (row) => number(row.misses) },
      { name: "Failed", value: (row) => row.failed, text: (row) => row.failed ? number(row.failed) : "", kind: (row) => row.failed ? "slow" : null },
      { name: "p50", value: (row) => row.p50_seconds, text: (row) => seconds(row.p50_seconds) },
      { name: "p99", value: (row) => row.p99_seconds, text: (row) => seconds(row.p99_seconds) },
      { name: "Held p99", value: (row) => row.hold_p99_seconds, text: (row) => seconds(row.hold_p99_seconds) },
    ];
    for (const column of columns) if (column.value) { column.numeric = true; column.sort = sort; }
    this.by = columns.find((column) => column.name === "Requests");
    this.table = new Table(this.section, columns, open);
  }

  show() {
    const part = parts.adapters;
    if (!part.known) return;
    const value = (row) => this.by.value(row) ?? -1;
    this.table.show([...part.rows.values()].sort((a, b) => value(b) - value(a) || compareNames(a.name, b.name)));
    for (const head of this.table.head.children) {
      mark(head, "aria-sort", head.dataset.name === this.by.name ? "descending" : null);
    }
    put($(".count", this.section), number(part.rows.size + part.more));
    note(this.section, part.error || (part.more
      ? `The busiest ${number(part.rows.size)}. For any other, ask what would happen to a request for it.`
      : part.rows.size ? "" : "No adapter has been used or loaded."));
  }
}

function asDeclared(row) {
  if (!row.declared_by) return "";
  if (row.state === "unplaced") return row.state;
  return `${row.state}, ${number(row.listed)} of ${many(row.wanted, "pod")}`;
}

function whyNot(row) {
  return row.unplaced_because
    || row.failing.map((each) => `${each.pod} cannot ${each.action} it: ${each.reason}`).join("\n");
}

function inMemory(row) { return [...row.running, ...row.loaded]; }

function where(pods, count = pods.length) {
  if (count <= 2) return pods.map((name) => name.split("/").pop()).join(", ");
  return many(count, "pod");
}

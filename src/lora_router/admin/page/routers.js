// The processes that act as one router.

class Routers {
  constructor() {
    this.section = $("#routers");
    this.table = new Table(this.section, [
      { name: "Router", text: (row) => row.name || "this router" },
      { name: "State", badge: true, text: (row) => row.ready ? "ready" : "not ready", kind: (row) => row.ready ? "good" : "bad" },
      { name: "Reason", text: (row) => row.ready ? "" : row.reason, title: (row) => row.reason },
      { name: "Version", text: (row) => row.version },
      { name: "Algorithm", text: (row) => row.algorithm },
      { name: "Pods", numeric: true, text: (row) => number(row.pods) },
      { name: "Held", numeric: true, text: (row) => number(row.held) },
      { name: "In flight", numeric: true, text: (row) => number(row.in_flight) },
      { name: "Decisions", numeric: true, text: (row) => number(row.decisions) },
      { name: "Loop lag", numeric: true, text: (row) => seconds(row.loop_lag_seconds), kind: (row) => row.loop_lag_seconds > LAG_SECONDS ? "slow" : null },
      { name: "Up", numeric: true, text: (row) => seconds(row.uptime_seconds + routerNow(parts.routers) - row.receivedAt) },
      { name: "Peers", text: (row) => row.peers.join(", ") },
    ]);
  }

  show() {
    const part = parts.routers;
    if (!part.known) return;
    const rows = [...part.rows.values()].sort((a, b) => compareNames(a.name, b.name));
    this.table.show(rows);
    put($(".count", this.section), number(rows.length));
    note(this.section, part.error || (part.unreachable.length ? `No answer from ${part.unreachable.join(", ")}.` : ""));
    const first = rows[0];
    if (first) put($("#about"), `${first.version} · ${first.algorithm}`);
  }
}

// Decisions as they come, or those of one model or pod.

const SEARCH_SECONDS = 2;

class Decisions {
  constructor(open) {
    this.section = $("#decisions");
    this.model = $("#decisions-model");
    this.pod = $("#decisions-pod");
    this.abnormal = $("#decisions-abnormal");
    this.pause = $("#decisions-pause");
    this.found = null;
    this.asked = 0;
    this.table = new Table(this.section, [
      { name: "Time", text: (row) => clock(row.at) },
      { name: "Model", text: (row) => row.model || "–", title: (row) => row.model },
      { name: "Result", badge: true, text: resultOf, kind: kindOf },
      { name: "Pod", text: (row) => row.retried_on || row.pod || "–", title: (row) => row.retried_on ? `${row.pod}, then ${row.retried_on}` : row.pod },
      { name: "Reason", text: (row) => row.reason, title: (row) => row.reason },
      { name: "Held", numeric: true, text: (row) => row.held_for ? seconds(row.held_seconds) : "", kind: (row) => row.held_for ? "held" : null },
      { name: "First byte", numeric: true, text: (row) => seconds(row.first_byte_seconds), kind: (row) => row.slow ? "slow" : null },
      { name: "Total", numeric: true, text: (row) => row.seconds === null ? "open" : seconds(row.seconds) },
    ], open);
    let typed = 0;
    for (const field of [this.model, this.pod]) {
      field.addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(() => this.search(), 300); });
    }
    this.abnormal.addEventListener("change", () => this.search());
    this.pause.addEventListener("click", () => this.setPaused(!this.paused));
    setInterval(() => { if (this.filtered && !this.paused && !document.hidden) this.search(); }, SEARCH_SECONDS * 1000);
  }

  get filtered() { return Boolean(this.model.value.trim() || this.pod.value.trim() || this.abnormal.checked); }

  get paused() { return this.pause.getAttribute("aria-pressed") === "true"; }

  setPaused(on) {
    this.pause.setAttribute("aria-pressed", String(on));
    put(this.pause, on ? "Resume" : "Pause");
    if (!on) this.search();
  }

  of(pod) {
    this.pod.value = pod;
    this.model.value = "";
    this.search();
    this.section.scrollIntoView();
    this.pod.focus();
  }

  // The router has more decisions than this page, so that it is asked for those of a model or a pod.
  async search() {
    const turn = ++this.asked;
    if (!this.filtered) {
      this.found = null;
      this.show(true);
      return;
    }
    const query = new URLSearchParams({ limit: "100" });
    if (this.model.value.trim()) query.set("model", this.model.value.trim());
    if (this.pod.value.trim()) query.set("pod", this.pod.value.trim());
    if (this.abnormal.checked) query.set("abnormal", "true");
    let found;
    try {
      found = { rows: (await ask(`/debug/decisions?${query}`)).decisions, error: "" };
    } catch (error) {
      found = { rows: [], error: error.message };
    }
    if (turn !== this.asked) return;
    for (const row of found.rows) row.key = JSON.stringify([row.router, row.number]);
    this.found = found;
    this.show(true);
  }

  // While it is paused, only what the reader asks for changes what is shown.
  show(asked = false) {
    if (this.paused && !asked) return;
    const part = parts.decisions;
    // A router lists them in the order in which they were decided, which is later for those that were held.
    const rows = [...(this.found ? this.found.rows : part.rows.values())].sort((a, b) => b.at - a.at);
    this.table.show(rows);
    const error = this.found ? this.found.error : part.error;
    note(this.section, error || (rows.length || !part.known ? "" : this.found ? "No decision that the router remembers fits." : "No request has arrived yet."));
  }
}

function resultOf(row) {
  if (row.outcome === "refused" || row.outcome === "cancelled") return row.status ? `${row.outcome} ${row.status}` : row.outcome;
  if (row.retried_on) return `retried ${row.status || ""}`.trim();
  if (row.status) return String(row.status);
  return row.seconds === null || row.seconds === undefined ? row.outcome || "open" : "no answer";
}

function kindOf(row) {
  if (row.status >= 500 || row.outcome === "refused" || (row.seconds !== null && row.outcome === "routed" && !row.status)) return "bad";
  if (row.outcome === "cancelled" || row.retried_on || row.status >= 400) return "doubt";
  return row.status ? "good" : "open";
}

// The dialog: what happened to a request, what would happen, and what a pod or an adapter is like.

class Detail {
  constructor() {
    this.dialog = $("#detail");
    this.body = $("#detail-body");
    $("#detail-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.dialog.close(); });
    this.dialog.addEventListener("close", () => { this.turn += 1; this.subject = ""; this.from?.isConnected && this.from.focus(); });
    this.turn = 0;
    this.subject = "";
  }

  open(title, subject, ...content) {
    this.turn += 1;
    this.subject = subject;
    put($("#detail-title"), title);
    this.fill(...content);
    if (!this.dialog.open) {
      this.from = document.activeElement;
      this.dialog.showModal();
      this.body.scrollTop = 0;
    }
    return this.turn;
  }

  fill(...content) { this.body.replaceChildren(...content.filter(Boolean)); }

  // Shows what a promise gives, unless the reader has moved on.
  async load(turn, promise, draw) {
    try {
      const found = await promise;
      if (turn === this.turn) this.fill(...draw(found));
    } catch (error) {
      if (turn === this.turn) this.body.append(el("p", { class: "note" }, error.message));
    }
  }
}

function facts(pairs) {
  return el("dl", { class: "facts" }, ...pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined)
    .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function sentences(text) {
  return el("div", { class: "told" }, ...text.split("\n").filter(Boolean).map((line) => el("p", {}, line)));
}

function openDecision(detail, row) {
  const turn = detail.open(row.model || "Request", row.key, ...decisionContent(row), el("p", { class: "loading" }, "Reading the explanation…"));
  if (!row.request_id) {
    detail.fill(...decisionContent(row), el("p", { class: "note" }, "This request has no ID by which it can be looked up."));
    return;
  }
  const path = `/debug/decision?id=${encodeURIComponent(row.request_id)}&router=${encodeURIComponent(row.router)}`;
  detail.load(turn, ask(path), decisionContent);
}

function decisionContent(row) {
  return [
    row.text ? sentences(row.text) : null,
    timeline(row),
    facts([
      ["Request", row.request_id], ["Arrived", clock(row.at)], ["Router", row.router], ["Path", row.path],
      ["Model", row.model], ["Base model", row.base_model], ["Algorithm", row.algorithm],
      ["Outcome", `${row.outcome || "open"}${row.status ? `, status ${row.status}` : ""}`],
      ["Reason", row.reason], ["Pod", row.pod ? `${row.pod} (${row.endpoint})` : ""],
      ["Adapter was", PLACES[row.place] ?? row.place],
      ["Held because", row.held_for], ["Retried on", row.retried_on], ["Details by Envoy", row.details],
      ["Body", row.size ? `${number(row.size)} bytes${row.stream ? ", streamed answer" : ""}` : ""],
      ["Tokens", row.completion_tokens === null || row.completion_tokens === undefined ? "" : `${number(row.prompt_tokens)} in, ${number(row.completion_tokens)} out`],
    ]),
    ...candidates("Candidates", row.candidates, row.pod),
    ...candidates("Candidates when it began to be held", row.held_candidates, ""),
    row.candidates && !row.candidates.length && row.outcome !== "answered"
      ? el("p", { class: "note" }, "What it saw of the candidates was not kept. It is for abnormal requests, and for a share of the others (decisions_candidates_share).") : null,
  ];
}

// Where the time went. Each part is visible, however short it is.
function timeline(row) {
  const now = row.seconds ?? null;
  const first = row.first_byte_seconds;
  const before = row.held_seconds + row.decision_seconds;
  const spans = [["held", "Held", row.held_seconds], ["decided", "Decision", row.decision_seconds]];
  if (first !== null) spans.push(["pod", "Pod, to the first byte", Math.max(0, first - before)]);
  if (first !== null && now !== null) spans.push(["rest", "Rest of the answer", Math.max(0, now - first)]);
  if (first === null && now !== null) spans.push(["pod", "To its end, without an answer", Math.max(0, now - before)]);
  const total = spans.reduce((sum, [, , value]) => sum + value, 0);
  const label = `${spans.map(([, name, value]) => `${name}: ${seconds(value)}`).join("; ")}. Total: ${seconds(total)}`;
  const bar = el("div", { class: "bar", role: "img", "aria-label": label });
  for (const [kind, , value] of spans) {
    if (!value) continue;
    const piece = el("span", { "data-kind": kind });
    piece.style.flexGrow = String(total ? value / total : 0);
    bar.append(piece);
  }
  return el("div", { class: "timeline" }, bar,
    el("ul", { "aria-hidden": "true" }, ...spans.map(([kind, name, value]) => el("li", {},
      el("span", { class: "key", "data-kind": kind }), `${name} `, el("b", {}, seconds(value)))),
    el("li", { class: "total" }, now === null ? "So far " : "Total ", el("b", {}, seconds(total)))));
}

function candidates(title, rows, picked) {
  if (!rows || !rows.length) return [];
  const terms = [...new Set(rows.flatMap((row) => Object.keys(row.terms || {})))];
  const cost = rows.some((row) => row.cost !== null && row.cost !== undefined);
  const why = rows.some((row) => row.excluded);
  const head = ["Pod", "Adapter", "Requests", "Free slots", ...terms, ...(cost ? ["Cost"] : []), ...(why ? ["Excluded because"] : [])];
  const short = (value) => value === null || value === undefined ? "–" : String(Math.round(value * 1000) / 1000);
  return [
    el("h3", {}, title),
    el("div", { class: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, ...head.map((name, index) => el("th", { scope: "col", class: index > 1 && name !== "Excluded because" && "numeric" }, name)))),
      el("tbody", {}, ...rows.map((row) => el("tr", { "data-kind": row.pod === picked && "picked" },
        el("th", { scope: "row" }, row.pod, row.pod === picked ? el("span", { class: "badge", "data-kind": "good" }, "picked") : null),
        el("td", {}, PLACES[row.place] ?? row.place),
        el("td", { class: "numeric" }, number(row.requests)),
        el("td", { class: "numeric" }, number(row.free_slots)),
        ...terms.map((term) => el("td", { class: "numeric" }, short(row.terms?.[term]))),
        cost ? el("td", { class: "numeric" }, short(row.cost)) : null,
        why ? el("td", {}, row.excluded) : null))))),
  ];
}

function openQuestion(detail, model) {
  const turn = detail.open(model, "", el("p", { class: "loading" }, "Asking the router…"));
  detail.load(turn, ask(`/debug/explain?model=${encodeURIComponent(model)}`), questionContent);
}

const ANSWERS = { pick: "A pod would get it now", hold: "It would be held", refuse: "It would be refused" };

function questionContent(found) {
  return [
    sentences(found.text || `${ANSWERS[found.answer] || found.answer}. ${found.reason}`),
    facts([
      ["Now", ANSWERS[found.answer] || found.answer], ["Pod", found.pod], ["Reason", found.reason],
      ["Base model", found.base_model], ["Algorithm", found.algorithm],
      ["Waiting", found.held ? many(found.held, "request") : ""],
      ["Closing", found.closing ? `the slot of ${found.closing.adapter} on ${found.closing.pod}` : ""],
      ["Excluded", Object.entries(found.excluded || {}).map(([cause, count]) => `${many(count, "pod")}: ${cause}`).join("; ")],
    ]),
    ...candidates("Candidates", found.candidates, found.answer === "pick" ? found.pod : ""),
    found.more ? el("p", { class: "note" }, `${many(found.more, "pod")} more.`) : null,
  ];
}

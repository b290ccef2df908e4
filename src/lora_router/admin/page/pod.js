// One pod in the dialog, kept up to date while it is open.

function openPod(detail, key, filter) {
  const pod = parts.fleet.rows.get(key);
  if (pod) detail.open(pod.name, `pod ${key}`, ...podContent(pod, filter));
}

function podContent(pod, filter) {
  const condition = conditionOf(pod);
  const rank = { running: 0, slot: 1, "host-memory": 2 };
  const adapters = [...pod.adapters].sort((a, b) => rank[a.place] - rank[b.place]);
  return [
    el("p", {}, el("span", { class: "badge", "data-kind": condition.kind }, condition.word), pod.why ? ` ${pod.why}` : ""),
    facts([
      ["Address", pod.address], ["Base models", pod.base_models.join(", ")], ["Engine", pod.engine],
      ["Slots", pod.slots === null ? "unknown" : `${pod.slots}, ${pod.free_slots ?? "–"} without a running adapter`],
      ["In flight", number(pod.in_flight)], ["Queued in the pod", number(pod.waiting)],
      ["KV cache", percent(pod.cache_use)],
      ["Last scrape", pod.age_seconds === null ? "never" : pod.age_seconds ? `more than ${pod.age_seconds} s ago` : "within 10 s"],
    ]),
    el("h3", {}, "Adapters"),
    adapters.length ? el("div", { class: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Adapter"), el("th", { scope: "col" }, "Where"), el("th", { scope: "col", class: "numeric" }, "In flight"))),
      el("tbody", {}, ...adapters.map((adapter) => el("tr", {}, el("th", { scope: "row" }, adapter.name),
        el("td", {}, `${PLACES[adapter.place] ?? adapter.place}${adapter.closed ? ", closed for a request that waits" : ""}`),
        el("td", { class: "numeric" }, number(adapter.in_flight))))))) : el("p", {}, "There are none."),
    pod.adapters_more ? el("p", { class: "note" }, `${many(pod.adapters_more, "adapter")} more.`) : null,
    el("p", {}, el("button", { type: "button", onclick: () => filter(pod.name) }, "Show its decisions")),
  ];
}

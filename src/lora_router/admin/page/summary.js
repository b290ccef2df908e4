// What matters first: a few numbers, and what needs attention.

const LAG_SECONDS = 0.25;
const MOST_LINES = 8;

class Summary {
  constructor() {
    this.tiles = new Map();
    this.list = $("#summary");
    this.section = $("#attention");
    for (const [key, name] of [["pods", "Pods"], ["slots", "Slots running"], ["flight", "In flight"], ["held", "Held"], ["routers", "Routers"]]) {
      const value = el("dd", {});
      const more = el("dd", { class: "more" });
      this.list.append(el("div", { class: "tile", "data-key": key }, el("dt", {}, name), value, more));
      this.tiles.set(key, { value, more });
    }
  }

  show() {
    const pods = [...parts.fleet.rows.values()];
    const routers = [...parts.routers.rows.values()];
    const waiting = heldRows();
    if (parts.fleet.known) this.showFleet(pods);
    if (parts.routers.known) {
      this.tile("routers", number(routers.length), parts.routers.unreachable.length ? `${number(parts.routers.unreachable.length)} unreachable` : "", parts.routers.unreachable.length ? "bad" : null);
    }
    if (parts.held.known) {
      const all = waiting.length + parts.held.more;
      const oldest = waiting.length ? routerNow(parts.held) - waiting[0].since : 0;
      this.tile("held", number(all), all ? `oldest ${waited(oldest)}` : "", oldest > 10 ? "bad" : all ? "doubt" : null);
      document.title = all ? `(${all} held) lora-router` : "lora-router";
    }
    this.showAttention(pods, routers, waiting);
  }

  showFleet(pods) {
    const good = pods.filter((pod) => conditionOf(pod).kind === "good").length + parts.fleet.more;
    const all = pods.length + parts.fleet.more;
    let slots = 0, running = 0, closed = 0, flight = 0, queued = 0;
    for (const pod of pods) {
      slots += pod.slots ?? 0;
      flight += pod.in_flight;
      queued += pod.waiting ?? 0;
      for (const adapter of pod.adapters) {
        if (adapter.place === "running") running += 1;
        if (adapter.closed) closed += 1;
      }
    }
    this.tile("pods", `${number(good)} of ${number(all)}`, good < all ? `${number(all - good)} with a problem` : "healthy", good < all ? "bad" : null);
    this.tile("slots", slots ? `${number(running)} of ${number(slots)}` : number(running), closed ? `${number(closed)} closed` : "", null);
    this.tile("flight", number(flight), queued ? `${number(queued)} queued in pods` : "", null);
  }

  tile(key, value, more, kind) {
    const tile = this.tiles.get(key);
    put(tile.value, value);
    put(tile.more, more);
    mark(tile.value.parentElement, "data-kind", kind);
  }

  showAttention(pods, routers, waiting) {
    const lines = [];
    for (const name of parts.routers.unreachable) lines.push(["bad", `Router ${name} does not answer.`, "#routers"]);
    for (const router of routers) {
      if (!router.ready) lines.push(["bad", `Router ${router.name} is not ready: ${router.reason}`, "#routers"]);
      else if (router.loop_lag_seconds > LAG_SECONDS) lines.push(["doubt", `The event loop of router ${router.name} lagged ${seconds(router.loop_lag_seconds)} within the last minute.`, "#routers"]);
    }
    for (const pod of pods) {
      const condition = conditionOf(pod);
      if (condition.kind !== "good") lines.push([condition.kind, `Pod ${pod.name}: ${condition.word}${pod.why ? `: ${pod.why}` : ""}`, "#fleet"]);
    }
    const now = routerNow(parts.held);
    const groups = new Map();
    for (const row of waiting) {
      const group = groups.get(row.model);
      if (group) group.count += 1;
      else groups.set(row.model, { count: 1, row });
    }
    for (const [model, { count, row }] of groups) {
      const long = now - row.since;
      if (long > 2) lines.push([long > 10 ? "bad" : "doubt", `${model}: ${many(count, "request")} held for up to ${waited(long)}: ${row.reason}`, "#held"]);
    }
    lines.sort((a, b) => (a[0] === "bad" ? 0 : 1) - (b[0] === "bad" ? 0 : 1));
    const shown = lines.slice(0, MOST_LINES);
    if (lines.length > MOST_LINES) shown.push(["doubt", `and ${number(lines.length - MOST_LINES)} more`, "#fleet"]);
    const known = parts.fleet.known && parts.routers.known && parts.held.known;
    if (!lines.length) shown.push([known ? "good" : "open", known ? "Nothing." : "Waiting for the router.", null]);
    const list = $("ul", this.section);
    shown.forEach(([kind, text, target], index) => {
      let item = list.children[index];
      if (!item) {
        item = el("li", {}, el("a", {}));
        list.append(item);
      }
      mark(item, "data-kind", kind);
      mark(item.firstElementChild, "href", target);
      put(item.firstElementChild, text);
    });
    while (list.childElementCount > shown.length) list.lastElementChild.remove();
  }
}

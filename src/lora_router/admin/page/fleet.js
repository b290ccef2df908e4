// The fleet: a card for each pod, with its slots and the adapters in them. Only cards in view are drawn.

const MOST_SLOTS = 16;
const MANY_PODS = 60;

class Fleet {
  constructor(open) {
    this.section = $("#fleet");
    this.list = $(".pods", this.section);
    this.find = $("#fleet-find");
    this.problems = $("#fleet-problems");
    this.compact = $("#fleet-compact");
    this.cards = new Map();
    this.open = open;
    this.chosen = false;
    this.settle = roving(this.list, "button");
    this.watch = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const card = this.cards.get(entry.target.dataset.key);
        if (!card) continue;
        card.seen = entry.isIntersecting;
        if (card.seen && card.stale) this.draw(card);
      }
    }, { root: this.list, rootMargin: "300px" });
    this.list.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) this.open(button.parentElement.dataset.key);
    });
    this.find.addEventListener("input", () => this.filter());
    this.problems.addEventListener("change", () => this.filter());
    this.compact.addEventListener("change", () => { this.chosen = true; this.setCompact(this.compact.checked); });
  }

  setCompact(on) {
    this.compact.checked = on;
    this.list.classList.toggle("compact", on);
  }

  show() {
    const part = parts.fleet;
    if (!part.known) return;
    if (!this.chosen) this.setCompact(part.rows.size > MANY_PODS);
    const changed = part.all ? new Set([...part.rows.keys(), ...this.cards.keys()]) : part.changed;
    let moved = false;
    for (const key of changed) {
      const pod = part.rows.get(key);
      let card = this.cards.get(key);
      if (!pod) {
        if (card) {
          this.watch.unobserve(card.item);
          card.item.remove();
          this.cards.delete(key);
        }
        continue;
      }
      if (!card) {
        card = this.card(key);
        this.cards.set(key, card);
        moved = true;
      }
      card.pod = pod;
      this.fit(card);
      if (card.seen) this.draw(card);
      else card.stale = true;
    }
    if (moved) this.order();
    this.count();
    this.settle();
  }

  order() {
    const cards = [...this.cards.values()].sort((a, b) => compareNames(a.pod.name, b.pod.name));
    const shared = cards.length ? cards[0].pod.name.split("/")[0] : "";
    this.prefix = cards.length && cards.every((card) => card.pod.name.startsWith(`${shared}/`)) ? `${shared}/` : "";
    arrange(this.list, cards.map((card) => card.item));
    for (const card of cards) if (!card.item.isObserved) { card.item.isObserved = true; this.watch.observe(card.item); }
  }

  card(key) {
    // Names of pods differ at their end. If one is too long, its beginning is cut off.
    const name = el("bdi", { dir: "ltr" });
    const state = el("span", { class: "state" });
    const slots = el("span", { class: "slots" });
    const numbers = el("span", { class: "numbers" });
    const button = el("button", { type: "button", class: "pod", tabindex: "-1" },
      el("span", { class: "name" }, name), state, slots, numbers);
    const item = el("li", { "data-key": key }, button);
    return { item, button, name, state, slots, numbers, pod: null, seen: false, stale: true };
  }

  draw(card) {
    const { pod } = card;
    card.stale = false;
    put(card.name, pod.name.startsWith(this.prefix) ? pod.name.slice(this.prefix.length) : pod.name);
    const condition = conditionOf(pod);
    mark(card.button, "data-kind", condition.kind);
    put(card.state, condition.kind === "good" ? "" : condition.word);
    card.state.hidden = condition.kind === "good";
    this.drawSlots(card);
    put(card.numbers, [
      `${number(pod.in_flight)} in flight`,
      pod.free_slots < 0 ? `${many(-pod.free_slots, "adapter")} too many` : null,
      pod.waiting ? `${number(pod.waiting)} queued` : null,
      pod.cache_use === null ? null : `KV ${percent(pod.cache_use)}`,
    ].filter(Boolean).map((each) => each.replaceAll(" ", "\u00a0")).join(" · "));
    mark(card.button, "aria-label", describePod(pod, condition));
    mark(card.button, "title", pod.name);
  }

  drawSlots(card) {
    const wanted = slotsOf(card.pod);
    const { slots } = card;
    while (slots.childElementCount > wanted.length) slots.lastElementChild.remove();
    wanted.forEach((slot, index) => {
      let line = slots.children[index];
      if (!line) {
        line = el("span", { class: "slot" }, el("span", { class: "adapter" }), el("span", { class: "n" }));
        slots.append(line);
      }
      mark(line, "data-kind", slot.kind);
      mark(line, "data-hit", this.words && slot.name.toLowerCase().includes(this.words) ? "" : null);
      put(line.firstElementChild, slot.name);
      put(line.lastElementChild, slot.n);
    });
  }

  filter() {
    this.words = this.find.value.trim().toLowerCase();
    for (const card of this.cards.values()) {
      this.fit(card);
      if (card.seen) this.draw(card);
      else card.stale = true;
    }
    this.count();
  }

  fit(card) {
    const { pod } = card;
    const named = !this.words || pod.name.toLowerCase().includes(this.words)
      || pod.adapters.some((adapter) => adapter.name.toLowerCase().includes(this.words));
    card.item.hidden = !(named && (!this.problems.checked || conditionOf(pod).kind !== "good"));
  }

  count() {
    const part = parts.fleet;
    const all = part.rows.size + part.more;
    const shown = [...this.cards.values()].filter((card) => !card.item.hidden).length;
    put($(".count", this.section), shown === all ? many(all, "pod") : `${number(shown)} of ${many(all, "pod")}`);
    note(this.section, part.error || (part.more ? `${many(part.more, "pod")} without a problem are not shown.` : part.known && !all ? "There are no pods." : ""));
  }
}

const names = new Intl.Collator("en", { numeric: true });
function compareNames(a, b) { return names.compare(a, b) || (a < b ? -1 : a > b ? 1 : 0); }

// How a pod is: one word, and whether it is good, doubtful or bad.
function conditionOf(pod) {
  if (pod.state !== "ready") return { kind: "bad", word: "not ready" };
  if (pod.health === "ejected") return { kind: "bad", word: "ejected" };
  if (pod.health === "trying") return { kind: "doubt", word: "on trial" };
  if (pod.health === "suspect") return { kind: "doubt", word: "suspect" };
  if (pod.age_seconds === null) return { kind: "doubt", word: "not scraped" };
  if (pod.age_seconds > 0) return { kind: "doubt", word: `scrape ${pod.age_seconds} s old` };
  return { kind: "good", word: "healthy" };
}

function slotsOf(pod) {
  const inSlots = pod.adapters.filter((adapter) => adapter.place !== "host-memory");
  const lines = inSlots.slice(0, MOST_SLOTS).map((adapter) => ({
    kind: adapter.closed ? "closed" : adapter.place === "running" ? "running" : "loaded",
    name: adapter.name,
    n: adapter.closed ? `closed ${adapter.in_flight || ""}`.trim() : adapter.in_flight ? number(adapter.in_flight) : "",
  }));
  const size = Math.min(pod.slots ?? 0, MOST_SLOTS);
  while (lines.length < size) lines.push({ kind: "empty", name: "", n: "" });
  const left = inSlots.length - MOST_SLOTS;
  if (left > 0) lines.push({ kind: "more", name: `and ${left} more`, n: "" });
  return lines;
}

function describePod(pod, condition) {
  const running = pod.adapters.filter((adapter) => adapter.place === "running").length;
  return [
    pod.name, condition.word, pod.why,
    pod.slots === null ? `${running} adapters running` : `${running} of ${pod.slots} slots running`,
    `${pod.in_flight} in flight`,
  ].filter(Boolean).join(", ");
}

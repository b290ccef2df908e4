// Puts the parts together: draws once for each change, in the browser's next frame.

const detail = new Detail();
const showPod = (key) => openPod(detail, key, (name) => { detail.dialog.close(); decisions.of(name); });
const fleet = new Fleet(showPod);
const held = new Held((row) => openQuestion(detail, row.model));
const decisions = new Decisions((row) => openDecision(detail, row));
const adapters = new Adapters((row) => openQuestion(detail, row.name));
const routers = new Routers();
const summary = new Summary();
const views = { fleet, held, decisions, adapters, routers };
const due = new Set();
let isNews = false;

function draw() {
  const started = performance.now();
  for (const name of due) {
    if (name === "summary") continue;
    views[name].show();
    parts[name].changed.clear();
    parts[name].all = false;
  }
  if (due.has("fleet")) {
    for (const [key, pod] of parts.fleet.rows) {
      if (detail.subject !== `pod ${key}`) continue;
      if (!detail.body.contains(document.activeElement)) detail.fill(...podContent(pod, (name) => { detail.dialog.close(); decisions.of(name); }));
    }
  }
  summary.show();
  due.clear();
  if (isNews) put($("#cost"), `Last update: ${(performance.now() - started).toFixed(1)} ms.`);
  isNews = false;
}

function isDue(name) {
  if (!due.size) requestAnimationFrame(draw);
  due.add(name);
}

new Stream((name, sent) => {
  apply(name, sent);
  isNews = true;
  isDue(name);
}, (state, text) => {
  const line = $("#connection");
  put(line, text);
  mark(line, "data-state", state);
  document.body.classList.toggle("old", state === "bad");
});

// Times that count up.
setInterval(() => {
  if (document.hidden) return;
  isDue("held");
  isDue("summary");
}, 500);

$("#ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  openQuestion(detail, $("#ask-model").value.trim());
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, textarea, select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || detail.dialog.open) return;
  if (event.key === "/") {
    event.preventDefault();
    fleet.find.focus();
  } else if (event.key === "p") decisions.setPaused(!decisions.paused);
});

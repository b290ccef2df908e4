// What the router sent: the rows of each part, by key.

const parts = {};
for (const [name, field] of Object.entries({
  fleet: "pods", held: "held", decisions: "decisions", adapters: "adapters", routers: "routers",
})) {
  parts[name] = { field, rows: new Map(), key: [], changed: new Set(), at: 0, offset: 0, more: 0, error: "", unreachable: [], known: false };
}

function apply(name, sent) {
  const part = parts[name];
  if (sent.full) {
    part.key = sent.key;
    part.rows.clear();
    part.known = true;
    part.all = true;
  }
  part.error = sent.error || "";
  part.more = sent.more;
  part.unreachable = sent.unreachable || [];
  if (sent.at) {
    part.at = sent.at;
    // The clocks of this browser and of the router differ.
    part.offset = Date.now() / 1000 - sent.at;
  }
  for (const row of sent[part.field]) {
    const key = JSON.stringify(part.key.map((field) => row[field]));
    const known = part.rows.get(key);
    if (known) Object.assign(known, row);
    else part.rows.set(key, Object.assign(row, { key, receivedAt: part.at }));
    part.changed.add(key);
  }
  for (const gone of sent.gone) {
    const key = JSON.stringify(gone);
    part.rows.delete(key);
    part.changed.add(key);
  }
}

// The time of day at the router, in seconds since 1970.
function routerNow(part) { return Date.now() / 1000 - part.offset; }

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (answer.status === 401) throw new Error("This session has ended. Reload the page to sign in again.");
  const text = await answer.text();
  let document = null;
  try { document = JSON.parse(text); } catch { /* It is a sentence. */ }
  if (!answer.ok) throw new Error(document?.error || text.trim() || `HTTP status ${answer.status}`);
  return document;
}

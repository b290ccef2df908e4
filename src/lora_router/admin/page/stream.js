// The connection to the router, and what is said about it.

const QUIET_SECONDS = 6;
const HIDDEN_SECONDS = 60;
// A stream ends now and then, and begins again within this time.
const LOST_MILLISECONDS = 1500;

class Stream {
  constructor(onPart, onState) {
    this.onPart = onPart;
    this.onState = onState;
    this.source = null;
    this.heardAt = 0;
    this.lostAt = 0;
    this.trouble = "";
    this.again = 0;
    this.leaving = 0;
    document.addEventListener("visibilitychange", () => this.look());
    setInterval(() => this.check(), 1000);
    this.open();
  }

  open() {
    clearTimeout(this.again);
    this.source?.close();
    const source = new EventSource("/debug/events");
    this.source = source;
    for (const name of Object.keys(parts)) {
      source.addEventListener(name, (event) => {
        this.heard();
        this.onPart(name, JSON.parse(event.data));
      });
    }
    source.addEventListener("tick", () => { this.trouble = ""; this.heard(); });
    source.addEventListener("trouble", (event) => { this.trouble = JSON.parse(event.data).text; this.heard(); });
    source.addEventListener("error", () => this.failed(source));
  }

  heard() {
    this.heardAt = Date.now();
    if (this.isLost()) this.backAt = Date.now();
    this.lostAt = 0;
    this.refused = "";
    this.check();
  }

  failed(source) {
    if (source !== this.source) return;
    if (!this.lostAt) this.lostAt = Date.now();
    // The browser tries again by itself, but not after an answer that is no stream.
    if (source.readyState === EventSource.CLOSED) this.ask();
    this.check();
  }

  async ask() {
    try {
      const answer = await fetch("/debug/events", { method: "HEAD", cache: "no-store" });
      if (answer.status === 401) this.refused = "Signed out. Reload the page to sign in.";
      else if (answer.status === 503) this.refused = "Too many viewers look at this router. Waiting for one to leave.";
      else this.refused = "";
    } catch { this.refused = ""; }
    clearTimeout(this.again);
    this.again = setTimeout(() => this.open(), 3000);
    this.check();
  }

  // A tab that nobody sees costs the router nothing after a minute.
  look() {
    clearTimeout(this.leaving);
    if (document.hidden) {
      this.leaving = setTimeout(() => { this.source.close(); this.source = null; clearTimeout(this.again); }, HIDDEN_SECONDS * 1000);
    } else if (!this.source) this.open();
  }

  isLost() {
    return this.lostAt && Date.now() - this.lostAt > LOST_MILLISECONDS;
  }

  check() {
    const quiet = (Date.now() - this.heardAt) / 1000;
    if (this.refused) this.onState("bad", this.refused);
    else if (this.isLost()) {
      this.onState("bad", `Connection lost. Reconnecting… What you see is from ${clock(this.heardAt / 1000, false)}.`);
    } else if (!this.heardAt) this.onState("wait", "Connecting…");
    else if (this.trouble) this.onState("bad", `The router is busy: ${this.trouble}.`);
    else if (quiet > QUIET_SECONDS) {
      this.onState("bad", `No news from the router. What you see is from ${clock(this.heardAt / 1000, false)}.`);
    } else if (this.backAt && Date.now() - this.backAt < 10000) {
      this.onState("live", "Live. Connected again.");
    } else this.onState("live", "Live");
  }
}

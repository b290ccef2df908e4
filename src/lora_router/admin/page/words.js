// How numbers and times are written.

const numbers = new Intl.NumberFormat("en");

function number(value) { return value === null || value === undefined ? "–" : numbers.format(value); }

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.0000005) return "0";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${value < 0.01 ? (value * 1e3).toFixed(1) : Math.round(value * 1e3)} ms`;
  if (value < 10) return `${value.toFixed(2)} s`;
  if (value < 120) return `${value.toFixed(1)} s`;
  if (value < 7200) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  if (value < 172800) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} days`;
}

// A time that counts up in front of the reader.
function waited(value) {
  return value < 120 ? `${Math.max(0, value).toFixed(1)} s` : seconds(value);
}

function percent(share) { return share === null || share === undefined ? "–" : `${Math.round(share * 100)} %`; }

function clock(at, fraction = true) {
  const date = new Date(at * 1000);
  const two = (value) => String(value).padStart(2, "0");
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return fraction ? `${time}.${String(date.getMilliseconds()).padStart(3, "0")}` : time;
}

function many(count, noun, plural = `${noun}s`) { return `${number(count)} ${count === 1 ? noun : plural}`; }

const PLACES = {
  running: "running", slot: "in a slot", "host-memory": "in host memory", nowhere: "not loaded", "": "",
};

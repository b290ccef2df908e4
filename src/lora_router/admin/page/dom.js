"use strict";
// Elements. Text from outside is set as text, never as HTML: the page's policy forbids the latter.

function $(selector, within = document) { return within.querySelector(selector); }

// What is invisible or changes the order of the text around it, as an escape. Names come from clients
// and pods: one must not look like another, or like none.
function visible(text) {
  return text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (found) =>
    found === "\n" ? found : `\\u{${found.codePointAt(0).toString(16)}}`);
}

function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children
    .filter((child) => child !== null && child !== undefined)
    .map((child) => (typeof child === "string" ? visible(child) : child)));
  return element;
}

function put(element, text) {
  const shown = visible(String(text));
  if (element.textContent !== shown) element.textContent = shown;
}

function mark(element, name, value) {
  const text = value === null || value === false ? null : value === true ? "" : visible(String(value));
  if (element.getAttribute(name) === text) return;
  if (text === null) element.removeAttribute(name);
  else element.setAttribute(name, text);
}

function note(section, text) {
  const element = $(".note", section);
  element.hidden = !text;
  put(element, text || "");
}

// Puts elements in this order into a parent, and moves as few as possible.
function arrange(parent, elements) {
  let next = parent.firstElementChild;
  for (const element of elements) {
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
  }
  while (next) {
    const after = next.nextElementSibling;
    next.remove();
    next = after;
  }
}

// One element of a list can be reached with Tab, the others with the arrow keys.
function roving(list, selector) {
  const items = () => [...list.querySelectorAll(selector)].filter((item) => item.getClientRects().length);
  list.addEventListener("focusin", (event) => {
    const item = event.target.closest(selector);
    if (!item) return;
    for (const other of list.querySelectorAll(`${selector}[tabindex="0"]`)) other.tabIndex = -1;
    item.tabIndex = 0;
  });
  list.addEventListener("keydown", (event) => {
    const item = event.target.closest(selector);
    if (!item || event.target !== item) return;
    const all = items();
    const at = all.indexOf(item);
    const to = {
      ArrowDown: () => below(all, item, 1), ArrowUp: () => below(all, item, -1),
      ArrowRight: () => all[at + 1], ArrowLeft: () => all[at - 1],
      Home: () => all[0], End: () => all[all.length - 1],
    }[event.key];
    if (to) {
      event.preventDefault();
      to()?.focus();
    } else if ((event.key === "Enter" || event.key === " ") && item.tagName !== "BUTTON") {
      event.preventDefault();
      item.click();
    }
  });
  return () => {
    const current = list.querySelector(`${selector}[tabindex="0"]`);
    if (current && !current.closest("[hidden]")) return;
    const first = [...list.querySelectorAll(selector)].find((item) => !item.closest("[hidden]"));
    if (current) current.tabIndex = -1;
    if (first) first.tabIndex = 0;
  };
}

// The next item in the rows above or below, in a grid as in a list.
function below(all, item, way) {
  const box = item.getBoundingClientRect();
  let best = null;
  for (const other of all) {
    const at = other.getBoundingClientRect();
    const down = (at.top - box.top) * way;
    if (down < box.height / 2) continue;
    const distance = down * 4 + Math.abs(at.left - box.left);
    if (!best || distance < best.distance) best = { other, distance };
  }
  return best?.other;
}

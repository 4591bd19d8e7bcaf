// Follows a page: takes the parts and cells that the server sends once a second. Without it, the page reloads.
"use strict";
(() => {
  const main = document.getElementById("content");
  const link = document.getElementById("link");
  const search = document.getElementById("q");
  const looks = main.dataset.looks ? JSON.parse(main.dataset.looks) : {};
  let version = main.dataset.version;
  let heard = new Date();
  let source = null;
  let cells = new Map();

  const each = (selector, then) => document.querySelectorAll(selector).forEach(then);

  // One cell of the map is in the order of the tab key; arrows go on from there.
  function prepare() {
    cells = new Map();
    each("#map [data-host]", (cell) => {
      cell.tabIndex = cells.size ? -1 : 0;
      cells.set(cell.dataset.host, cell);
    });
  }

  function draw(cell, code) {
    const [sign, word, style] = looks[code];
    cell.className = `cell ${style}`;
    cell.textContent = sign;
    cell.title = `${cell.dataset.host}: ${word}`;
    cell.setAttribute("aria-label", cell.title);
  }

  function keepingFocus(element, change) {
    const active = document.activeElement;
    const within = element.contains(active) && active !== element;
    const address = within && active.getAttribute("href");
    const label = within && active.getAttribute("aria-label");
    const left = new Map();
    element.querySelectorAll(".scroll").forEach((box) => left.set(box.getAttribute("aria-label"), box.scrollLeft));
    change();
    element.querySelectorAll(".scroll").forEach((box) => { box.scrollLeft = left.get(box.getAttribute("aria-label")) || 0; });
    if (!within) return;
    for (const candidate of element.querySelectorAll("a, [tabindex]")) {
      if (address ? candidate.getAttribute("href") === address : label && candidate.getAttribute("aria-label") === label) {
        candidate.focus({ preventScroll: true });
        return;
      }
    }
  }

  function take(change) {
    for (const [name, markup] of Object.entries(change.parts)) {
      const part = document.querySelector(`[data-part="${CSS.escape(name)}"]`);
      if (part) keepingFocus(part, () => { part.innerHTML = markup; });
    }
    const map = document.getElementById("map");
    if (change.map !== undefined) {
      if (!map) { location.reload(); return; }
      keepingFocus(map, () => { map.innerHTML = change.map; });
      prepare();
    }
    for (const [code, hosts] of Object.entries(change.cells || {})) {
      for (const host of hosts) {
        const cell = cells.get(host);
        if (cell) draw(cell, code);
      }
    }
  }

  function follow() {
    const mark = main.dataset.live.includes("?") ? "&" : "?";
    const opened = new EventSource(`${main.dataset.live}${mark}since=${encodeURIComponent(version)}`);
    source = opened;
    source.addEventListener("open", () => { link.hidden = true; });
    source.addEventListener("change", (event) => {
      heard = new Date();
      version = event.lastEventId;
      take(JSON.parse(event.data));
      document.documentElement.dataset.version = version;
    });
    source.addEventListener("ping", () => { heard = new Date(); });
    source.addEventListener("error", () => {
      link.textContent = `▽ As of ${heard.toLocaleTimeString()}: the command directdownload dashboard does not answer.`;
      link.hidden = false;
      // Unless the page was hidden meanwhile: then it opens another one when it is shown.
      if (opened.readyState === EventSource.CLOSED) setTimeout(() => { if (source === opened) follow(); }, 3000);
    });
  }

  // A browser keeps few connections to one server: a hidden page gives its own back, and catches up when it is shown.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden && source) { source.close(); source = null; }
    if (!document.hidden && !source) follow();
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target;
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName)) {
      search.focus();
      search.select();
      event.preventDefault();
      return;
    }
    if (!target.dataset || !target.dataset.host || !event.key.startsWith("Arrow")) return;
    const all = [...cells.values()];
    const at = all.indexOf(target);
    const box = target.getBoundingClientRect();
    let next = null;
    if (event.key === "ArrowRight") next = all[at + 1];
    if (event.key === "ArrowLeft") next = all[at - 1];
    const below = event.key === "ArrowDown";
    if (below || event.key === "ArrowUp") {
      const way = below ? all.slice(at + 1) : all.slice(0, at).reverse();
      next = way.find((cell) => {
        const other = cell.getBoundingClientRect();
        return (below ? other.top > box.top : other.top < box.top) && Math.abs(other.left - box.left) < box.width;
      });
    }
    if (next) {
      target.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    }
    event.preventDefault();
  });

  prepare();
  if (main.dataset.live && !document.hidden) follow();
})();

// The console's only script: keeps a page live and its clocks counting. Everything works without it.
"use strict";

(() => {
  const LIVE = "[data-live]";

  // Counting clocks: the server says the deadline and its own time, so a wrong clock in the browser doesn't matter.
  const served = Number(document.documentElement.dataset.now || Date.now());
  let skew = served - Date.now();

  const pad = (n) => String(n).padStart(2, "0");

  function span(ms) {
    const s = Math.floor(Math.abs(ms) / 1000);
    const h = Math.floor(s / 3600);
    return (h > 0 ? h + ":" + pad(Math.floor(s / 60) % 60) : String(Math.floor(s / 60))) + ":" + pad(s % 60);
  }

  function tick() {
    const now = Date.now() + skew;
    for (const node of document.querySelectorAll("[data-due]")) {
      const left = Number(node.dataset.due) - now;
      node.textContent = (left < 0 ? "-" : "") + span(left);
      node.classList.toggle("over", left < 0);
    }
    for (const bar of document.querySelectorAll("[data-from][data-to]")) {
      const from = Number(bar.dataset.from);
      const part = Math.min(1, Math.max(0, (now - from) / (Number(bar.dataset.to) - from)));
      bar.setAttribute("width", (part * Number(bar.dataset.full)).toFixed(1));
    }
  }

  // Live parts: fetch this page again and take over the parts that carry an id. Forms are never inside them.
  let busy = false;
  let again = false;

  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { "X-Mainstay-Live": "1" }, redirect: "manual" });
      if (answer.type === "opaqueredirect" || answer.status === 401) { location.assign("/sign-in"); return; }
      if (!answer.ok) { return; }
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      skew = Number(fresh.documentElement.dataset.now || Date.now()) - Date.now();
      for (const part of document.querySelectorAll(LIVE)) {
        const next = fresh.getElementById(part.id);
        if (next && next.innerHTML !== part.innerHTML) {
          const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
          part.replaceChildren(...Array.from(next.childNodes, (node) => document.importNode(node, true)));
          if (focused && document.getElementById(focused)) { document.getElementById(focused).focus(); }
        }
      }
      tick();
    } finally {
      busy = false;
      if (again) { again = false; refresh(); }
    }
  }

  if (document.querySelector(LIVE)) {
    const stream = new EventSource("/events");
    let lost = false;
    const link = document.getElementById("link-state");
    stream.addEventListener("ready", () => { if (lost) { lost = false; refresh(); } if (link) { link.hidden = true; } });
    stream.addEventListener("change", refresh);
    stream.addEventListener("error", () => {
      lost = true;
      if (link) { link.hidden = false; }
      if (stream.readyState === EventSource.CLOSED) { refresh(); }
    });
  }

  setInterval(tick, 1000);
  tick();
})();

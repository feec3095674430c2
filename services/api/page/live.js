// What changes while somebody looks: one event stream (SSE) per browser. The tab that holds the lock reads it and tells
// the others; without locks (plain HTTP away from localhost) each tab reads its own.

import { useEffect, useState } from "./vendor/preact-hooks.js";

const URL_OF_EVENTS = "api/v1/events";
const EVENTS_KEPT = 200;
const store = { state: "connecting", transfers: new Map(), prompts: null, events: [], stats: null };
const viewers = new Set();
const changes = new Set();
const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel(`cyroid-images:${location.pathname}`) : null;
let drawing = 0;
let started = false;

export const on_change = (listener) => { changes.add(listener); return () => changes.delete(listener); };
const changed = (kind) => changes.forEach((listener) => listener(kind));

export function useLive() {
  const [, draw] = useState(0);
  useEffect(() => {
    const again = () => draw((count) => count + 1);
    viewers.add(again);
    return () => viewers.delete(again);
  }, []);
  return store;
}

function redraw() {
  if (drawing) return;
  drawing = setTimeout(() => { drawing = 0; viewers.forEach((draw) => draw()); }, 100);
}

function take(kind, data) {
  if (kind === "state") {
    if (store.state !== data && data === "live") changed("*");
    store.state = data;
  } else if (kind === "snapshot") {
    store.transfers = new Map((data.transfers ?? []).map((one) => [one.transfer_id, one]));
    store.prompts = data.prompts ?? store.prompts;
    store.stats = data.stats ?? store.stats;
    changed("*");
  } else if (kind === "transfer") {
    store.transfers.set(data.transfer_id, data);
    if (store.transfers.size > 2000) store.transfers.delete(store.transfers.keys().next().value);
  } else if (kind === "event") {
    store.events = [data, ...store.events].slice(0, EVENTS_KEPT);
    changed("events");
  } else if (kind === "changed") {
    changed(data.kind);
  } else if (kind === "reset") {
    store.transfers = new Map();
    store.events = [];
  }
  redraw();
}

function tell(kind, data) {
  take(kind, data);
  channel?.postMessage({ kind, data });
}

function read_stream() {
  return new Promise((resolve) => {
    let source = null, timer = 0, wait = 1000;
    const open = () => {
      source = new EventSource(URL_OF_EVENTS);
      source.onopen = () => { wait = 1000; tell("state", "live"); };
      source.onerror = () => {
        tell("state", "polling");
        if (source.readyState !== EventSource.CLOSED) return;
        clearTimeout(timer); // a refused stream is not opened again by the browser
        timer = setTimeout(open, wait);
        wait = Math.min(wait * 2, 30_000);
      };
      for (const kind of ["snapshot", "transfer", "event", "changed", "reset"]) {
        source.addEventListener(kind, (event) => {
          try { tell(kind, JSON.parse(event.data)); } catch { /* half an event: the next snapshot has it */ }
        });
      }
    };
    open();
    addEventListener("pagehide", () => { clearTimeout(timer); source?.close(); resolve(); }, { once: true });
  });
}

export function start_live(is_offered) {
  if (started) return;
  started = true;
  if (!is_offered) { take("state", "polling"); return; }
  if (channel) {
    channel.onmessage = ({ data }) => (data.kind === "ask" ? answer() : take(data.kind, data.data));
    channel.postMessage({ kind: "ask" });
  }
  if (channel && navigator.locks) navigator.locks.request(`cyroid-images:${location.pathname}`, read_stream);
  else read_stream();
}

// A tab that was opened later gets what the reading tab knows.
function answer() {
  if (store.state !== "live") return;
  channel.postMessage({ kind: "snapshot", data: { transfers: [...store.transfers.values()], prompts: store.prompts, stats: store.stats } });
  channel.postMessage({ kind: "state", data: store.state });
}

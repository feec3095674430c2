// The place in the page, kept behind the `#`: `#/ranges/range-1?q=web`. A link or a reload shows the same.

import { useEffect, useState } from "./vendor/preact-hooks.js";

const decoded = (text) => { try { return decodeURIComponent(text); } catch { return text; } };

export function here() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [tab, ...rest] = path.split("/");
  return { tab: decoded(tab), id: rest.length ? rest.map(decoded).join("/") : null, query: Object.fromEntries(new URLSearchParams(query)) };
}

export function link(tab, id, query) {
  const text = new URLSearchParams(Object.entries(query ?? {}).filter(([, value]) => value !== "" && value !== undefined && value !== null)).toString();
  return `#/${tab}${id ? `/${encodeURIComponent(id)}` : ""}${text ? `?${text}` : ""}`;
}

export function usePlace() {
  const [place, set] = useState(here);
  useEffect(() => {
    const moved = () => set(here());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return place;
}

// Changes the query without a step in the browser's history.
export function set_query(changes) {
  const { tab, id, query } = here();
  history.replaceState(null, "", link(tab, id, { ...query, ...changes }));
  dispatchEvent(new HashChangeEvent("hashchange"));
}

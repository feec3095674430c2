// Requests to the API. URLs are relative to the page, so it works wherever a proxy shows it.

import { useCallback, useEffect, useRef, useState } from "./vendor/preact-hooks.js";
import { on_change } from "./live.js";

const ANSWER_MS = 30_000;
const listeners = { signed_out: () => {} };
export const when_signed_out = (listener) => { listeners.signed_out = listener; };

export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `the server answered ${status}`);
    this.status = status;
    this.code = body.code || "";
  }
}

export const path_of = (...parts) => `api/v1/${parts.map((one) => String(one).split("/").map(encodeURIComponent).join("/")).join("/")}`;

export function with_query(path, query) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== null && value !== "") found.append(name, value);
  }
  const text = found.toString();
  return text ? `${path}?${text}` : path;
}

// One request; the answer's body and headers. Throws Problem, or Error when the server does not answer.
export async function request(method, path, { body, headers = {}, signal, raw, priority } = {}) {
  const timeout = AbortSignal.timeout(ANSWER_MS);
  const options = { method, headers: { Accept: "application/json", ...headers }, credentials: "same-origin", redirect: "error" };
  options.signal = raw ? signal : signal ? AbortSignal.any([signal, timeout]) : timeout;
  if (priority) options.priority = priority;
  if (raw !== undefined) options.body = raw;
  else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Error("the server does not answer");
  }
  const kind = answer.headers.get("Content-Type") || "";
  const content = answer.status === 204 ? null : kind.includes("json") ? await answer.json().catch(() => ({})) : await answer.text();
  if (!answer.ok && !(answer.status === 503 && content?.dependencies)) {
    if (answer.status === 401) listeners.signed_out();
    throw new Problem(answer.status, typeof content === "object" && content ? content : {});
  }
  return { data: content, headers: answer.headers, status: answer.status };
}

export const get = async (path, options) => (await request("GET", path, options)).data;
export const post = async (path, body, headers) => (await request("POST", path, { body: body ?? {}, headers })).data;
// Replaces what was read, and nothing that somebody else wrote meanwhile.
export const replace = (path, body, etag) => post(path, body, etag ? { "If-Match": etag } : {});
export const remove = async (path) => (await request("DELETE", path)).data;

// What this server offers, by its own description: the page asks for nothing else, so it fits older servers too.
let offered = null;
const parameters = new Map();
export async function learn_offers() {
  const { paths } = await get(path_of("openapi.json"));
  for (const [path, { get: read }] of Object.entries(paths)) parameters.set(path.slice(1), new Set((read?.parameters ?? []).map((one) => one.name)));
  offered = new Set(Object.entries(paths).flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${path.replace(/{\w+}/g, "{}")}`)));
}
export const offers = (method, path) => !offered || offered.has(`${method} /api/v1/${path}`);

// What a path answers, asked again every `every` ms, when one of `kinds` changes, and when the page is looked at again.
// With an error the last answer stays, as `stale`.
// The same answer again (ETag) draws nothing, unless its time is shown (`timed`). `priority`: as of fetch.
export function useGet(path, { every = 10_000, kinds = [], priority, timed = false } = {}) {
  const [state, set] = useState({ path: null, data: undefined, error: null, at: 0 });
  const run = useRef(() => {});
  useEffect(() => {
    if (!path) return undefined;
    const control = new AbortController();
    let timer = 0, busy = false, again = false, known = null;
    const ask = async () => {
      clearTimeout(timer);
      if (busy) { again = true; return; }
      busy = true;
      try {
        const { data, headers } = await request("GET", path, { signal: control.signal, priority });
        const etag = headers.get("ETag");
        if (!control.signal.aborted && (timed || !etag || etag !== known)) set({ path, data, etag, error: null, at: Date.now() });
        known = etag;
      } catch (error) {
        known = null;
        if (!control.signal.aborted) set((last) => ({ ...(last.path === path ? last : { data: undefined, at: 0 }), path, error }));
      }
      busy = false;
      if (control.signal.aborted) return;
      if (again) { again = false; ask(); return; }
      if (every && !document.hidden) timer = setTimeout(ask, every);
    };
    const seen = () => { if (!document.hidden) ask(); };
    const stop = on_change((kind) => {
      if (kind === "*" || kinds.includes(kind)) { clearTimeout(timer); timer = setTimeout(ask, 250); }
    });
    run.current = ask;
    document.addEventListener("visibilitychange", seen);
    addEventListener("online", ask);
    ask();
    return () => {
      control.abort();
      clearTimeout(timer);
      stop();
      document.removeEventListener("visibilitychange", seen);
      removeEventListener("online", ask);
    };
  }, [path, every, kinds.join()]);
  const mine = state.path === path;
  return {
    data: mine ? state.data : undefined,
    etag: mine ? state.etag : null,
    error: mine ? state.error : null,
    at: mine ? state.at : 0,
    loading: Boolean(path) && (!mine || (state.data === undefined && !state.error)),
    stale: mine && state.error !== null && state.data !== undefined,
    reload: useCallback(() => run.current(), []),
  };
}

// One page of a list, with the cursors of the pages before it.
// `template`: the path as the API's document has it, where it holds an id: `hosts/{}/images`.
export function useList(path, query, { template, ...options } = {}) {
  const key = JSON.stringify([path, query]);
  const [place, set_place] = useState({ key, cursors: [] });
  const cursors = place.key === key ? place.cursors : [];
  const known = parameters.get(path);
  const asked = Object.entries({ ...query, cursor: cursors.at(-1) }).filter(([name]) => !known || known.has(name));
  const offer = path && offers("GET", template ?? path.replace("api/v1/", ""));
  const found = useGet(offer ? with_query(path, Object.fromEntries(asked)) : null, options);
  const next = found.data?.next;
  return {
    ...found,
    rows: found.data?.items,
    total: found.data?.total ?? found.data?.items?.length,
    counts: found.data?.counts ?? {},
    page: cursors.length,
    next: next ? () => set_place({ key, cursors: [...cursors, next] }) : null,
    previous: cursors.length ? () => set_place({ key, cursors: cursors.slice(0, -1) }) : null,
  };
}

// A command that a person started: `busy` while it runs, `error` of the last try.
export function useCommand(command) {
  const [state, set] = useState({ busy: false, error: null, result: null });
  const latest = useRef(command);
  latest.current = command;
  const run = useCallback(async (...given) => {
    set({ busy: true, error: null, result: null });
    try {
      const result = await latest.current(...given);
      set({ busy: false, error: null, result });
      return result ?? true;
    } catch (error) {
      set({ busy: false, error, result: null });
      return null;
    }
  }, []);
  return { ...state, run };
}

export const fresh_key = () => [...crypto.getRandomValues(new Uint8Array(16))].map((one) => one.toString(16).padStart(2, "0")).join("");

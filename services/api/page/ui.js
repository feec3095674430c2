// Components that every tab uses.

import { h } from "./vendor/preact.js";
import { useEffect, useRef, useState } from "./vendor/preact-hooks.js";
import htm from "./vendor/htm.js";
import { age, bytes, clock, duration, LIMIT, number, parts, percent, plain, rate, short_digest, short_name } from "./text.js";

export const html = htm.bind(h);

// Text that may come from a range.
export function Text({ value, limit = LIMIT }) {
  return html`<bdi>${parts(value, limit).map((one) =>
    one.text ?? (one.hidden ? html`<span class="hidden-char" title="an invisible character">${one.hidden}</span>` : html`<span class="more">… ${number(one.more)} more characters</span>`))}</bdi>`;
}

export const Name = ({ reference, limit = 160 }) => html`<span class="name" title=${plain(reference, 600)}><${Text} value=${short_name(reference)} limit=${limit} /></span>`;

export const Age = ({ at }) => html`<time datetime=${plain(at, 40)} title=${clock(at)}>${at ? age(at) : "–"}</time>`;

export function Digest({ value }) {
  const [copied, set] = useState(false);
  if (!value) return html`<span class="quiet">–</span>`;
  const copy = async () => {
    try { await navigator.clipboard.writeText(value); set(true); setTimeout(() => set(false), 1500); } catch { set(false); }
  };
  return html`<button class="digest" onClick=${copy} title=${`Copy ${plain(value, 100)}`} aria-label=${`Copy digest ${plain(short_digest(value))}`}>
    <${Text} value=${short_digest(value)} limit=${16} />${copied && html`<span class="copied" role="status">copied</span>`}</button>`;
}

const TONES = {
  ready: "good", succeeded: "good", pushed: "good", alive: "good", same: "good", there: "good", done: "good", ok: "good", yes: "good", reused: "good",
  failed: "bad", wrong: "bad", unreadable: "bad", damaged: "bad", dead: "bad", incomplete: "bad", contested: "bad", error: "bad",
  away: "warn", stalled: "warn", cancelled: "quiet", skipped: "quiet", note: "warn", other: "warn", no: "warn", unknown: "warn",
};
export const Badge = ({ state, children }) => html`<span class=${`badge ${TONES[state] ?? "busy"}`}><${Text} value=${children ?? state} limit=${40} /></span>`;

export function Bar({ done, total, label, stalled, tone }) {
  const share = percent(done, total);
  return html`<span class=${`bar ${stalled ? "stalled" : tone ?? ""}`} role="progressbar" aria-label=${plain(label, 120)} aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${total > 0 ? share : undefined}><span style=${{ width: `${share}%` }}></span></span>`;
}

export const Failure = ({ error }) => error && html`<p class="problem" role="alert"><${Text} value=${error.message ?? error} limit=${600} /></p>`;

// Why there is nothing to see, or why it may be old. `found` comes from useGet.
export function State({ found, noun = "This" }) {
  if (found.stale || found.data?.stale) {
    const since = found.data?.as_of ?? (found.at ? new Date(found.at).toISOString() : null);
    return html`<p class="stale" role="status">${noun} may be old${since && html`: as of ${clock(since)}`}. ${found.error ? html`<${Text} value=${found.error.message} />. It is asked again by itself.` : ""}</p>`;
  }
  if (found.error) return html`<p class="problem" role="alert">${noun} cannot be shown: <${Text} value=${found.error.message} limit=${600} />. <button class="link" onClick=${found.reload}>Try again</button></p>`;
  if (found.loading) return html`<p class="quiet" role="status">Loading…</p>`;
  return null;
}

export function Section({ title, actions, children, id }) {
  return html`<section aria-labelledby=${id}><header><h2 id=${id}>${title}</h2>${actions && html`<div class="actions">${actions}</div>`}</header>${children}</section>`;
}

// A table: `columns` [{key, title, sort, cell(row), number, wide}]; `sort` like "name" or "-size".
export function Table({ label, columns, rows, row_key, sort, on_sort, selected, on_select, empty, details }) {
  const all = rows.length > 0 && rows.every((row) => selected?.has(row_key(row)));
  const heading = (column) => {
    if (!column.sort || !on_sort) return column.title;
    const state = sort === column.sort ? "ascending" : sort === `-${column.sort}` ? "descending" : null;
    return html`<button class="sort" onClick=${() => on_sort(state === "descending" || (!state && !column.number) ? column.sort : `-${column.sort}`)}>${column.title}<span aria-hidden="true">${state === "ascending" ? " ↑" : state ? " ↓" : ""}</span></button>`;
  };
  const aria = (column) => (sort === column.sort && column.sort ? "ascending" : sort === `-${column.sort}` ? "descending" : undefined);
  if (!rows.length) return html`<p class="empty">${empty}</p>`;
  return html`<div class="scroll" tabindex="0" role="group" aria-label=${label}><table>
    <thead><tr>
      ${on_select && html`<th class="check"><input type="checkbox" aria-label="Select all rows" checked=${all} onChange=${() => on_select(all ? [] : rows.map(row_key))} /></th>`}
      ${columns.map((column) => html`<th key=${column.key} scope="col" class=${column.number ? "number" : ""} aria-sort=${aria(column)}>${heading(column)}</th>`)}
    </tr></thead>
    <tbody>${rows.map((row) => {
      const key = row_key(row);
      const more = details?.(row);
      return html`<tr key=${key}>
        ${on_select && html`<td class="check"><input type="checkbox" aria-label=${`Select ${plain(key, 120)}`} checked=${selected.has(key)}
          onChange=${() => on_select(selected.has(key) ? [...selected].filter((one) => one !== key) : [...selected, key])} /></td>`}
        ${columns.map((column) => html`<td key=${column.key} class=${column.number ? "number" : ""} data-title=${column.title}>${column.cell(row)}</td>`)}
      </tr>${more && html`<tr class="details" key=${`${key} details`}><td colspan=${columns.length + (on_select ? 1 : 0)}>${more}</td></tr>`}`;
    })}</tbody></table></div>`;
}

export function Pager({ list, noun, label }) {
  if (!list.rows) return null;
  return html`<nav class="pager" aria-label=${`Pages of ${label ?? `${noun}s`}`}><span>${number(list.total)} ${noun}${list.total === 1 ? "" : "s"}${list.page ? `, page ${list.page + 1}` : ""}</span>
    ${(list.previous || list.next) && html`<button disabled=${!list.previous} onClick=${list.previous}>Previous</button><button disabled=${!list.next} onClick=${list.next}>Next</button>`}</nav>`;
}

// A search field that waits until the typing pauses.
export function Search({ label, value, on_change, list }) {
  const [text, set] = useState(value ?? "");
  const timer = useRef(0);
  useEffect(() => { set(value ?? ""); }, [value]);
  const typed = (event) => {
    const now = event.currentTarget.value;
    set(now);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => on_change(now), 250);
  };
  return html`<input type="search" aria-label=${label} placeholder=${label} value=${text} onInput=${typed} maxlength="256" list=${list} />`;
}

export function Select({ label, value, options, on_change }) {
  return html`<label class="select"><span>${label}</span><select value=${value ?? ""} onChange=${(event) => on_change(event.currentTarget.value)}>
    ${options.map(([key, text]) => html`<option key=${key} value=${key} selected=${key === (value ?? "")}>${text}</option>`)}</select></label>`;
}

// A dialog that asks before something is done.
export function Dialog({ title, children, on_close }) {
  const element = useRef(null);
  useEffect(() => { element.current.showModal(); }, []);
  return html`<dialog ref=${element} onClose=${on_close} aria-labelledby="dialog-title"><h2 id="dialog-title">${title}</h2>${children}</dialog>`;
}

export const Card = ({ title, value, note, tone, href }) => html`<div class=${`card ${tone ?? ""}`}><dt>${href ? html`<a href=${href}>${title}</a>` : title}</dt><dd>${value}${note && html`<small>${note}</small>`}</dd></div>`;

const layer_words = { waiting: "waiting", running: "sending", extracting: "unpacking", done: "done", reused: "there already" };

// A transfer as it is now, expandable to its layers.
export function Transfer({ transfer, open }) {
  const left = transfer.seconds_left === null || transfer.seconds_left === undefined ? "" : `about ${duration(transfer.seconds_left)} left`;
  const facts = [transfer.stalled ? "stalled: nothing came for a while" : transfer.phase, `${bytes(transfer.done_bytes)} of ${bytes(transfer.total_bytes)}`,
    transfer.layers_total ? `${transfer.layers_done} of ${transfer.layers_total} layers` : "", rate(transfer.bytes_per_second), left];
  return html`<details class="transfer" open=${open}><summary><${Name} reference=${transfer.reference} />${transfer.range_id && html`<span class="quiet">to <${Text} value=${transfer.range_id} limit=${80} /></span>`}
      <${Bar} done=${transfer.done_bytes} total=${transfer.total_bytes} stalled=${transfer.stalled} label=${`progress of ${transfer.reference}`} />
      <span class="facts">${facts.filter(Boolean).join(" · ")}</span></summary>
    ${transfer.note && html`<p><${Text} value=${transfer.note} /></p>`}
    <ul class="layers">${(transfer.layers ?? []).slice(0, 200).map((layer) => html`<li key=${layer.digest}><code><${Text} value=${short_digest(layer.digest)} limit=${16} /></code>
      <${Bar} done=${layer.phase === "done" || layer.phase === "reused" ? 1 : layer.done_bytes} total=${layer.phase === "done" || layer.phase === "reused" ? 1 : layer.total_bytes} label=${`layer ${short_digest(layer.digest)}`} />
      <span class="facts">${layer_words[layer.phase] ?? plain(layer.phase, 40)} · ${bytes(layer.total_bytes)}</span></li>`)}</ul></details>`;
}

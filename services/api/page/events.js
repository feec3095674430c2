// The tab Events: what happened, what was given up (dead letters), and who reads which stream.

import { useState } from "./vendor/preact-hooks.js";
import { offers, path_of, post, useCommand, useList } from "./net.js";
import { useLive } from "./live.js";
import { set_query } from "./router.js";
import { duration, number, plain, plural } from "./text.js";
import { Age, Badge, Dialog, Failure, html, Pager, Search, Section, State, Table, Text } from "./ui.js";

export function Events({ place, may }) {
  const live = useLive();
  const shown = [offers("GET", "dead-letters") && html`<${DeadLetters} may=${may} />`, offers("GET", "event-log") ? html`<${Log} place=${place} />` : html`<${Happening} events=${live.events} />`, offers("GET", "groups") && html`<${Groups} />`];
  return html`${shown}`;
}

// Without a log on the server: what was heard since the page was opened.
function Happening({ events }) {
  return html`<${Section} title="Events since the page was opened" id="log"><ul class="plain" aria-live="off">${events.map((one) => html`<li key=${one.id ?? one.entry}><${Age} at=${one.time} /> <strong><${Text} value=${one.type} limit=${60} /></strong> <${Text} value=${one.subject} limit=${160} />
    ${one.actor && html`<span class="quiet">by <${Text} value=${one.actor} limit=${60} /></span>`}</li>`)}</ul>${!events.length && html`<p class="empty">Nothing has happened since then. <code>cyroid-images events tail</code> shows what was before, <code>cyroid-images events dead list</code> what was given up.</p>`}</${Section}>`;
}

function DeadLetters({ may }) {
  const [selected, set_selected] = useState([]);
  const [verb, set_verb] = useState(null);
  const list = useList(path_of("dead-letters"), { limit: 50 }, { every: 15_000, kinds: ["events"] });
  const columns = [
    { key: "type", title: "Message", cell: (row) => html`<${Text} value=${row.type} limit=${60} />` },
    { key: "reason", title: "Why", cell: (row) => html`<strong><${Text} value=${row.reason} limit=${60} /></strong><small><${Text} value=${row.message} limit=${200} /></small>` },
    { key: "group", title: "Given up by", cell: (row) => html`<${Text} value=${row.group} limit=${40} />` },
    { key: "on", title: "Stream", cell: (row) => html`<${Text} value=${row.stream} limit=${80} />` },
    { key: "failed", title: "Tries", number: true, cell: (row) => number(row.failed + row.crashed) },
    { key: "time", title: "When", number: true, cell: (row) => html`<${Age} at=${row.time} />` },
  ];
  const chosen = selected.length ? { letters: selected } : {};
  return html`<${Section} title="Dead letters" id="dead" actions=${may("operator") && list.rows?.length > 0 && html`
      <button onClick=${() => set_verb("redrive")}>Redrive ${selected.length || "all"}…</button><button class="danger" onClick=${() => set_verb("drop")}>Drop ${selected.length || "all"}…</button>`}>
    <${State} found=${list} noun="The list of dead letters" />
    ${list.rows && html`<${Table} label="Dead letters" columns=${columns} rows=${list.rows} row_key=${(row) => row.letter} selected=${may("operator") ? new Set(selected) : null} on_select=${may("operator") ? set_selected : null}
      empty="Nothing was given up." /><${Pager} list=${list} noun="dead letter" />`}
    ${verb && html`<${Confirm} verb=${verb} chosen=${chosen} on_close=${() => { set_verb(null); set_selected([]); list.reload(); }} />`}
  </${Section}>`;
}

// Counts first, then asks with that number: what came meanwhile is not touched.
function Confirm({ verb, chosen, on_close }) {
  const path = path_of("dead-letters", verb);
  const count = useCommand(() => post(path, chosen));
  const work = useCommand((confirm) => post(path, { ...chosen, confirm }));
  const [asked, set_asked] = useState(false);
  if (!asked) { set_asked(true); count.run(); }
  const many = count.result?.matching;
  return html`<${Dialog} title=${verb === "redrive" ? "Redrive dead letters" : "Drop dead letters"} on_close=${on_close}>
    <p>${work.result ? html`${plural(work.result.done, "dead letter")} ${verb === "redrive" ? "are on their streams again" : "are gone"}.` : many === undefined ? "Counting…" : verb === "redrive" ? `${plural(many, "message")} will be put on their streams once more.` : `${plural(many, "message")} will be removed for ever.`}</p>
    <${Failure} error=${count.error ?? work.error} />
    <div class="buttons"><form method="dialog"><button>${work.result ? "Close" : "Keep"}</button></form>
      ${!work.result && html`<button class=${verb === "drop" ? "danger" : "primary"} disabled=${!many || work.busy} onClick=${() => work.run(many)}>${verb === "redrive" ? "Redrive" : "Drop"}</button>`}</div></${Dialog}>`;
}

function Log({ place }) {
  const { type = "", subject = "", correlation_id = "" } = place.query;
  const list = useList(path_of("event-log"), { limit: 50, type, q: subject, correlation_id }, { every: 10_000, kinds: ["events"] });
  const [open, set_open] = useState(null);
  const columns = [
    { key: "time", title: "When", cell: (row) => html`<${Age} at=${row.time} />` },
    { key: "type", title: "Event", cell: (row) => html`<button class="link" aria-expanded=${open === row.entry} onClick=${() => set_open(open === row.entry ? null : row.entry)}><${Text} value=${row.type ?? "unreadable"} limit=${60} /></button>` },
    { key: "subject", title: "About", cell: (row) => html`<${Text} value=${row.subject} limit=${120} />` },
    { key: "source", title: "From", cell: (row) => html`<${Text} value=${row.source} limit=${60} />${row.actor && html`<small class="quiet">by <${Text} value=${row.actor} limit=${40} /></small>`}` },
    { key: "thread", title: "Thread", cell: (row) => row.correlationid && html`<button class="link" onClick=${() => set_query({ correlation_id: row.correlationid })}><${Text} value=${row.correlationid} limit=${8} /></button>` },
  ];
  const details = (row) => open === row.entry && html`<pre tabindex="0"><${Text} value=${JSON.stringify(row.data, null, 2)} limit=${4000} /></pre>`;
  return html`<${Section} title="Event log" id="log" actions=${html`<${Search} label="Type" value=${type} on_change=${(text) => set_query({ type: text })} /><${Search} label="About" value=${subject} on_change=${(text) => set_query({ subject: text })} />
      ${correlation_id && html`<button onClick=${() => set_query({ correlation_id: "" })}>Thread ${plain(correlation_id, 8)} ✕</button>`}`}>
    <${State} found=${list} noun="The event log" />
    ${list.rows && html`<${Table} label="Event log" columns=${columns} rows=${list.rows} row_key=${(row) => `${row.stream} ${row.entry}`} details=${details} empty=${type || subject || correlation_id ? "No event fits." : "Nothing has happened yet."} /><${Pager} list=${list} noun="event" />`}
  </${Section}>`;
}

function Groups() {
  const found = useList(path_of("groups"), { limit: 200 }, { every: 15_000 });
  const columns = [
    { key: "stream", title: "Stream", cell: (row) => html`<${Text} value=${row.stream} limit=${100} />` },
    { key: "group", title: "Group", cell: (row) => html`<${Text} value=${row.group} limit=${40} />` },
    { key: "lag", title: "Not delivered", number: true, cell: (row) => number(row.lag) },
    { key: "pending", title: "Under way", number: true, cell: (row) => number(row.pending) },
    { key: "deferred", title: "Put off", number: true, cell: (row) => number(row.deferred) },
    { key: "oldest", title: "Oldest", number: true, cell: (row) => (row.oldest_unacked_seconds || row.oldest_undelivered_seconds ? html`<${Badge} state=${row.oldest_undelivered_seconds > 60 ? "other" : "ok"}>${duration(Math.max(row.oldest_unacked_seconds ?? 0, row.oldest_undelivered_seconds ?? 0))}</${Badge}>` : "–") },
  ];
  return html`<${Section} title="Who reads what" id="groups"><${State} found=${found} noun="The list of groups" />
    ${found.data && html`<${Table} label="Consumer groups" columns=${columns} rows=${found.data.items} row_key=${(row) => `${row.stream} ${row.group}`} empty="No group reads a stream yet." />`}</${Section}>`;
}

// The tab Registry: what is stored, what the host's engine has, pushing and deleting.

import { useState } from "./vendor/preact-hooks.js";
import { fresh_key, get, offers, path_of, post, remove, useCommand, useGet, useList, with_query } from "./net.js";
import { useLive } from "./live.js";
import { Add } from "./ingest.js";
import { link, set_query } from "./router.js";
import { bytes, number, percent, plain, plural, short_name } from "./text.js";
import { Age, Badge, Bar, Card, Dialog, Digest, Failure, html, Name, Pager, Search, Section, Select, State, Table, Text, Transfer } from "./ui.js";

const ROWS = 50;

export function Registry({ place, may }) {
  if (place.id) return html`<${OneImage} reference=${place.id} may=${may} />`;
  return html`<${Cards} />
    ${may("operator") && html`<${Push} />`}
    ${may("operator") && html`<${Add} />`}
    <${Running} />
    <${Stored} place=${place} may=${may} />
    <${Host} place=${place} may=${may} />
    <${Repositories} />`;
}

function Cards() {
  const stats = useGet(path_of("registry", "stats"), { every: 15_000, kinds: ["images"] });
  const health = useGet("readyz", { every: 15_000, priority: "low" });
  const dead = useList(path_of("dead-letters"), { limit: 1 }, { every: 30_000, priority: "low" });
  const { transfers } = useLive();
  const stuck = [...transfers.values()].filter((one) => one.stalled).length;
  const found = stats.data ?? {};
  const away = Object.entries(health.data?.dependencies ?? {}).filter(([, one]) => one.status !== "ok" && one !== "ok");
  const well = health.data && !away.length;
  return html`<h2 class="sr">Overview</h2><${State} found=${stats} noun="The figures" />
  <dl class="cards">
    <${Card} title="Images" value=${number(found.images)} note=${found.repositories !== undefined && `in ${plural(found.repositories, "repository").replace("repositorys", "repositories")}`} />
    <${Card} title="Stored" value=${bytes(found.storage_used_bytes)} note=${found.layers !== undefined && plural(found.layers, "layer")} />
    <${Card} title="Without sharing" value=${bytes(found.logical_bytes)} />
    <${Card} title="Saved by sharing" value=${bytes(found.saved_bytes)} note=${found.logical_bytes > 0 && `${percent(found.saved_bytes, found.logical_bytes)} %`} />
    ${typeof found.storage_free_bytes === "number" && html`<${Card} title="Free on the disk" value=${bytes(found.storage_free_bytes)} />`}
    <${Card} title="Health" href=${link("doctor")} value=${health.data ? (well ? "all well" : away.map(([name]) => name).join(", ")) : "–"}
      note=${well ? Object.keys(health.data.dependencies).join(", ") : health.data ? "does not answer" : health.error && "not known"} tone=${well ? "good" : health.data ? "bad" : ""} />
    <${Card} title="Stalled transfers" value=${number(stuck)} tone=${stuck ? "warn" : ""} />
    ${offers("GET", "dead-letters") && html`<${Card} title="Dead letters" href=${link("events")} value=${dead.data ? number(dead.data.total ?? dead.data.items.length) : "–"} tone=${dead.data?.total ? "bad" : ""} />`}
  </dl>`;
}

const preview_of = (reference) => get(with_query(path_of("registry", "push", "preview"), { reference }));

function Push() {
  const [reference, set] = useState("");
  const [asked, look] = useState(false);
  const host = useList(asked ? path_of("images") : null, { limit: ROWS, q: reference }, { every: 0 });
  const preview = useCommand(preview_of);
  const push = useCommand((name) => post(path_of("registry", "push"), { reference: name }, { "Idempotency-Key": fresh_key() }));
  const submit = (event) => {
    event.preventDefault();
    if (reference) push.run(reference);
  };
  const told = preview.result;
  return html`<${Section} title="Push an image" id="push">
    <form class="row" onSubmit=${submit}>
      <label class="wide">Image of the host's engine
        <input name="reference" list="host-images" required maxlength="1024" autocomplete="off" spellcheck=${false} placeholder="name:tag" value=${reference} onFocus=${() => look(true)} onInput=${(event) => set(event.currentTarget.value)} /></label>
      <datalist id="host-images">${(host.data?.items ?? []).map((one) => html`<option key=${one.reference} value=${plain(one.reference, 300)}>${one.registry === "same" ? "in the registry" : ""}</option>`)}</datalist>
      <button type="button" disabled=${!reference || preview.busy} onClick=${() => preview.run(reference)}>What is missing?</button>
      <button class="primary" disabled=${!reference || push.busy}>Push</button>
    </form>
    <div aria-live="polite">
      ${told && html`<p>${told.missing_layers ? html`<strong>${number(told.missing_layers)} of ${plural(told.layers, "layer")} missing, ${bytes(told.missing_bytes)}</strong>` : html`<strong>Nothing is missing:</strong> all ${plural(told.layers, "layer")} are there`}${told.tag !== "same" && `; the tag is ${told.tag === "other" ? "moved from other content" : "new"}`}.${told.host && html` It comes from host <${Text} value=${told.host} limit=${80} />.`}</p>`}
      ${push.result && html`<p class="done">Push of <${Name} reference=${push.result.reference} /> was asked for.</p>`}
    </div>
    <${Failure} error=${preview.error ?? push.error} />
  </${Section}>`;
}

function Running() {
  const pushes = useList(path_of("pushes"), { limit: 10 }, { every: 10_000, kinds: ["pushes"] });
  const { transfers } = useLive();
  const running = [...transfers.values()].filter((one) => one.kind === "push");
  if (!running.length && !pushes.rows?.length) return null;
  const shown = new Set(running.map((one) => one.transfer_id));
  const rest = (pushes.rows ?? []).filter((one) => !shown.has(`push-${one.id}`));
  return html`<${Section} title="Pushes" id="pushes">
    ${running.map((one) => html`<${Transfer} key=${one.transfer_id} transfer=${one} />`)}
    <${State} found=${pushes} noun="The list of pushes" />
    <ul class="plain">${rest.map((one) => html`<li key=${one.id}><${Badge} state=${one.state} /> <${Name} reference=${one.reference} />
      <span class="quiet">${plain(one.why, 40)}${one.actor && html`, by <${Text} value=${one.actor} limit=${64} />`} · <${Age} at=${one.ended_at ?? one.asked_at} /></span>
      ${one.error && html`<span class="bad-text"><${Text} value=${one.error.message} /></span>`}</li>`)}</ul>
  </${Section}>`;
}

function Stored({ place, may }) {
  const { q = "", sort = "name", repository = "" } = place.query;
  const [selected, set_selected] = useState([]);
  const [deleting, set_deleting] = useState(false);
  const order = sort.startsWith("-") ? "desc" : "asc";
  const list = useList(path_of("registry", "images"), { limit: ROWS, sort: sort.replace("-", ""), order, q, repository }, { every: 20_000, kinds: ["images"] });
  const columns = [
    { key: "reference", title: "Image", sort: "name", cell: (row) => html`<a href=${link("registry", row.reference ?? `${row.repository}:${row.tag}`)}><${Name} reference=${row.reference ?? `${row.repository}:${row.tag}`} /></a>${row.kind !== "image" && html` <${Badge} state=${row.kind} />`}${row.problem && html`<small class="bad-text"><${Text} value=${row.problem} /></small>`}` },
    { key: "digest", title: "Digest", cell: (row) => html`<${Digest} value=${row.manifest_digest} />` },
    { key: "size", title: "Size", number: true, sort: "size", cell: (row) => bytes(row.size_bytes) },
    { key: "unique", title: "Its own", number: true, sort: "unique", cell: (row) => bytes(row.unique_bytes) },
    { key: "age", title: "Pushed", number: true, sort: "pushed", cell: (row) => html`<${Age} at=${row.pushed_at} />` },
    { key: "ranges", title: "Ranges", number: true, sort: "ranges", cell: (row) => number(row.ranges) },
  ];
  const name = (row) => row.reference ?? `${row.repository}:${row.tag}`;
  return html`<${Section} title="In the registry" id="stored" actions=${html`
      <${Search} label="Search images" value=${q} on_change=${(text) => set_query({ q: text })} />
      ${repository && html`<button onClick=${() => set_query({ repository: "" })}>Only ${plain(repository, 60)} ✕</button>`}
      ${may("operator") && html`<button class="danger" disabled=${!selected.length} onClick=${() => set_deleting(true)}>Delete${selected.length ? ` ${selected.length}` : ""}…</button>`}`}>
    <${State} found=${list} noun="The list of images" />
    ${list.rows && html`<${Table} label="Images in the registry" columns=${columns} rows=${list.rows} row_key=${name} sort=${sort} on_sort=${(now) => set_query({ sort: now })}
      selected=${may("operator") ? new Set(selected) : null} on_select=${may("operator") ? set_selected : null}
      empty=${q || repository ? "No image fits the search." : "The registry has no images yet: push one above, or build, import or promote one."} />
    <${Pager} list=${list} noun="image" />`}
    ${deleting && html`<${DeleteDialog} references=${selected} on_close=${() => { set_deleting(false); set_selected([]); list.reload(); }} />`}
  </${Section}>`;
}

const image_path = (reference, query) => with_query(path_of("images", reference), query);

function DeleteDialog({ references, on_close }) {
  const [force, set_force] = useState(false);
  const each = async (query) => {
    const found = [];
    for (const reference of references) {
      try {
        found.push({ reference, said: await remove(image_path(reference, query)) });
      } catch (error) {
        found.push({ reference, error });
      }
    }
    return found;
  };
  const look = useCommand(() => each({ dry_run: true, force }));
  const work = useCommand(() => each({ force }));
  const rows = work.result ?? look.result;
  const frees = (rows ?? []).reduce((sum, one) => sum + (one.said?.freed_now_bytes ?? 0) + (one.said?.freed_later_bytes ?? 0), 0);
  return html`<${Dialog} title=${`Delete ${plural(references.length, "image")} from the registry`} on_close=${on_close}>
    <ul class="plain scroll-list">${(rows ?? references.map((reference) => ({ reference }))).map((one) => html`<li key=${one.reference}><${Name} reference=${one.reference} />
      ${one.error && html`<span class="bad-text"><${Text} value=${one.error.message} limit=${400} /></span>`}
      ${one.said && html`<span class="quiet">${work.result ? (one.said.ended ? "deleted" : "will be deleted") : "would be deleted"}${one.said.siblings?.length ? `; other tags of the same content stay: ${plain(one.said.siblings.join(", "), 120)}` : ""}</span>`}
      ${one.said?.needed_by?.length > 0 && html`<span class="bad-text">needed by ${plain(one.said.needed_by.join(", "), 160)}</span>`}</li>`)}</ul>
    ${rows && frees > 0 && html`<p>${work.result ? "Freed" : "Frees"} ${bytes(frees)} with the next collection.</p>`}
    <label class="tick"><input type="checkbox" checked=${force} onChange=${(event) => set_force(event.currentTarget.checked)} /> Also what ranges or plans need</label>
    <div class="buttons"><form method="dialog"><button>${work.result ? "Close" : "Keep"}</button></form>
      ${!work.result && html`<button disabled=${look.busy} onClick=${() => look.run()}>What would happen?</button><button class="danger" disabled=${work.busy} onClick=${() => work.run()}>Delete</button>`}</div>
  </${Dialog}>`;
}

// How far the pushes of one request are, until all have ended.
function Batch({ asked }) {
  const offered = offers("GET", "push-batches/{}");
  const [ended, set_ended] = useState(false);
  const found = useGet(offered ? path_of("push-batches", asked.id) : null, { every: ended ? 0 : 2_000, kinds: ended ? [] : ["pushes"] });
  const now = found.data;
  if (now && now.ended !== ended) set_ended(now.ended);
  const many = asked.pushes.length, { pushed = 0, failed = 0, skipped = 0 } = now?.counts ?? {};
  const done = pushed + failed + skipped;
  const words = [`${number(pushed)} of ${plural(many, "push").replace("pushs", "pushes")} done`, failed && `${number(failed)} failed`, skipped && `${number(skipped)} skipped`, many > done && now && `${number(many - done)} under way`];
  return html`<p class=${failed ? "bad-text" : ended ? "done" : ""}>${now || !offered ? words.filter(Boolean).join(", ") : `${plural(many, "push").replace("pushs", "pushes")} asked for`}.</p>
    ${now && !ended && many > 0 && html`<${Bar} done=${done} total=${many} label="Pushes that have ended" />`}`;
}

const HERE = { same: "in the registry", other: "other content there", no: "not there", away: "not known now", unknown: "not known", "-": "no name" };

function Host({ place, may }) {
  const { hq = "", state = "" } = place.query;
  const [selected, set_selected] = useState([]);
  const list = useList(path_of("images"), { limit: ROWS, q: hq, registry: state }, { every: 20_000, kinds: ["host_images", "images"] });
  const push = useCommand((body) => post(path_of("registry", "push-many"), body, { "Idempotency-Key": fresh_key() }));
  const columns = [
    { key: "reference", title: "Image", cell: (row) => html`<${Name} reference=${row.reference} />` },
    { key: "id", title: "Image id", cell: (row) => html`<${Digest} value=${row.image_id ?? row.local_id} />` },
    { key: "platform", title: "Platform", cell: (row) => html`<${Text} value=${row.platform} limit=${40} />` },
    { key: "size", title: "Size", number: true, cell: (row) => bytes(row.size_bytes) },
    { key: "registry", title: "Registry", cell: (row) => html`<${Badge} state=${row.registry}>${HERE[row.registry] ?? row.registry}</${Badge}>` },
  ];
  return html`<${Section} title="On the host's engine" id="host" actions=${html`
      <${Search} label="Search the host's images" value=${hq} on_change=${(text) => set_query({ hq: text })} />
      <${Select} label="Registry" value=${state} on_change=${(now) => set_query({ state: now })} options=${[["", "all"], ["no", "not there"], ["other", "other content"], ["same", "there"]]} />
      ${may("operator") && html`<button disabled=${!selected.length || push.busy} onClick=${async () => { await push.run({ references: selected }); set_selected([]); }}>Push${selected.length ? ` ${selected.length}` : ""} selected</button>
        <button disabled=${push.busy} onClick=${() => push.run({ all_missing: true })}>Push all that are missing</button>`}`}>
    <${State} found=${list} noun="The list of the host's images" /><${Failure} error=${push.error} />
    <div aria-live="polite">${push.result?.pushes.length === 0 && html`<p class="done">Nothing was to be pushed.</p>`}${push.result?.pushes.length > 0 && html`<${Batch} key=${push.result.id} asked=${push.result} />`}
      ${push.result?.refused.length > 0 && html`<p class="bad-text">${`${push.result.refused.length} refused: ${push.result.refused.map((one) => `${plain(one.reference, 60)} (${plain(one.message, 120)})`).slice(0, 3).join("; ")}.`}</p>`}</div>
    ${list.rows && html`<${Table} label="Images of the host's engine" columns=${columns} rows=${list.rows} row_key=${(row) => row.reference}
      selected=${may("operator") ? new Set(selected) : null} on_select=${may("operator") ? set_selected : null} empty=${hq || state ? "No image fits." : "The host's engine has no images."} />
    <${Pager} list=${list} noun="image" label="the host's images" />`}
  </${Section}>`;
}

function Repositories() {
  const list = useList(path_of("registry", "repositories"), { limit: 20, sort: "stored", order: "desc" }, { every: 30_000, kinds: ["images"] });
  if (!list.rows?.length) return null;
  const most = Math.max(...list.rows.map((one) => one.logical_bytes || 0), 1);
  return html`<${Section} title="Storage by repository" id="repositories">
    <p class="legend"><span class="swatch own"></span>its own <span class="swatch shared"></span>shared with others <span class="swatch saved"></span>saved by sharing</p>
    <ul class="bars">${list.rows.map((one) => html`<li key=${one.repository}><a href=${link("registry", null, { repository: one.repository })}><${Name} reference=${one.repository} /></a>
      <span class="stack" role="img" aria-label=${`${plain(short_name(one.repository), 80)}: ${bytes(one.unique_bytes)} its own, ${bytes(one.shared_bytes)} shared, ${bytes(one.logical_bytes)} without sharing`}>
        ${[["own", one.unique_bytes], ["shared", one.shared_bytes], ["saved", Math.max(0, one.logical_bytes - one.unique_bytes - one.shared_bytes)]].map(([kind, size]) => html`<span key=${kind} class=${kind} style=${{ width: `${(100 * size) / most}%` }}></span>`)}</span>
      <span class="facts">${bytes(one.stored_bytes)} · ${plural(one.tags, "tag")}</span></li>`)}</ul>
  </${Section}>`;
}

function OneImage({ reference }) {
  const found = useGet(path_of("registry", "images", reference), { every: 15_000, kinds: ["images"] });
  const one = found.data;
  const columns = [
    { key: "digest", title: "Layer", cell: (layer) => html`<${Digest} value=${layer.digest} />` },
    { key: "size", title: "Size", number: true, cell: (layer) => bytes(layer.size_bytes) },
    { key: "codec", title: "Encoding", cell: (layer) => html`<${Text} value=${layer.codec ?? "–"} limit=${20} />` },
    { key: "references", title: "Images with it", number: true, cell: (layer) => number(layer.references) },
  ];
  return html`<p><a href=${link("registry")}>← Registry</a></p><${Section} title=${plain(short_name(reference), 200)} id="image">
    <${State} found=${found} noun="The image" />
    ${one && html`<dl class="facts-list"><dt>Manifest</dt><dd><${Digest} value=${one.manifest_digest} /></dd><dt>Image id</dt><dd><${Digest} value=${one.image_id} /></dd>
      <dt>Size</dt><dd>${bytes(one.size_bytes)}, of which ${bytes(one.unique_bytes)} only here</dd><dt>Pushed</dt><dd><${Age} at=${one.pushed_at} />${one.actor && html` by <${Text} value=${one.actor} />`}${one.source && html` from <${Text} value=${one.source} />`}</dd>
      <dt>Ranges that have it</dt><dd>${one.held_by?.length ? one.held_by.map((id) => html`<a class="chip" key=${id} href=${link("ranges", id)}><${Text} value=${id} limit=${80} /></a>`) : "none"}</dd></dl>
    <${Table} label="Layers" columns=${columns} rows=${one.layers ?? []} row_key=${(layer) => layer.digest} empty="No layers are known." />`}
  </${Section}>`;
}

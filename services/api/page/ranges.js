// The tab Ranges: each range's engine and agent, what it has, and what it should have.

import { useState } from "./vendor/preact-hooks.js";
import { path_of, remove, useCommand, useGet, useList, with_query } from "./net.js";
import { link, set_query } from "./router.js";
import { bytes, number, plain } from "./text.js";
import { Hosts, useHosts } from "./hosts.js";
import { Age, Badge, Dialog, Digest, Failure, html, Name, Pager, Search, Section, Select, State, Table, Text } from "./ui.js";

export function Ranges({ place, may }) {
  if (place.id) return html`<${OneRange} id=${place.id} may=${may} />`;
  return html`<${Lists} place=${place} may=${may} />`;
}

function Lists({ place, may }) {
  const hosts = useHosts();
  return html`<${Hosts} found=${hosts} chosen=${place.query.host ?? ""} may=${may} /><${List} place=${place} hosts=${hosts.data?.items ?? []} />`;
}

function List({ place, hosts }) {
  const { q = "", agent = "", host = "", sort = "name" } = place.query;
  const list = useList(path_of("ranges"), { limit: 50, q, agent, host, sort: sort.replace("-", ""), order: sort.startsWith("-") ? "desc" : "asc" }, { every: 10_000, kinds: ["ranges"] });
  const columns = [
    { key: "range", title: "Range", sort: "name", cell: (row) => html`<a href=${link("ranges", row.range_id)}><${Text} value=${row.range_id} limit=${80} /></a>${row.contested && html` <${Badge} state="contested" />`}` },
    { key: "host", title: "Host", cell: (row) => (row.host ? html`<${Text} value=${row.host} limit=${40} />` : html`<span class="quiet">–</span>`) },
    { key: "agent", title: "Agent", cell: (row) => html`<${Badge} state=${row.agent} />` },
    { key: "heard", title: "Heard", sort: "heard", cell: (row) => html`<${Age} at=${row.heard_at || row.at} />` },
    { key: "engine", title: "Engine", cell: (row) => html`<${Text} value=${[row.engine_version, row.store].filter(Boolean).join(", ") || "–"} limit=${60} />` },
    { key: "images", title: "Images", number: true, sort: "images", cell: (row) => number(row.images) },
    { key: "desired", title: "Should have", number: true, cell: (row) => number(row.desired) },
    { key: "missing", title: "Missing", number: true, sort: "missing", cell: (row) => (row.missing ? html`<${Badge} state="failed">${number(row.missing)}</${Badge}>` : number(row.missing)) },
    { key: "unreferenced", title: "Unreferenced", number: true, cell: (row) => number(row.unreferenced) },
    { key: "open", title: "Under way", number: true, cell: (row) => number(row.open_deployments) },
  ];
  return html`<${Section} title="Ranges" id="ranges" actions=${html`<${Search} label="Search ranges" value=${q} on_change=${(text) => set_query({ q: text })} />
      ${hosts.length > 1 && html`<${Select} label="Host" value=${host} on_change=${(now) => set_query({ host: now })} options=${[["", "all"], ...hosts.map((one) => [one.host, plain(one.host, 40)])]} />`}
      <${Select} label="Agent" value=${agent} on_change=${(now) => set_query({ agent: now })} options=${[["", "all"], ["alive", "alive"], ["away", "away"], ["unreadable", "unreadable"]].map(([key, text]) => [key, key && list.counts[key] !== undefined ? `${text} (${list.counts[key]})` : text])} />`}>
    <${State} found=${list} noun="The list of ranges" />
    ${list.rows && html`<${Table} label="Ranges" columns=${columns} rows=${list.rows} row_key=${(row) => row.range_id} sort=${sort} on_sort=${(now) => set_query({ sort: now })} empty=${q || agent || host ? "No range fits." : "No range's agent has reported yet."} /><${Pager} list=${list} noun="range" />`}
  </${Section}>`;
}

function OneRange({ id, may }) {
  const found = useGet(path_of("ranges", id), { every: 5_000, kinds: ["ranges", "deployments"] });
  const drift = useGet(path_of("ranges", id, "verification"), { every: 30_000, kinds: ["ranges"] });
  const unreferenced = useGet(path_of("ranges", id, "unwanted"), { every: 30_000, kinds: ["ranges"] });
  const [forgetting, set_forgetting] = useState(false);
  const one = found.data;
  const columns = [
    { key: "reference", title: "Image", cell: (row) => html`<${Name} reference=${row.reference} />` },
    { key: "verdict", title: "In the range", cell: (row) => html`<${Badge} state=${row.verdict} />${row.why && html`<small><${Text} value=${row.why} /></small>`}` },
    { key: "id", title: "Image id", cell: (row) => html`<${Digest} value=${row.wanted ?? row.found} />` },
  ];
  return html`<p><a href=${link("ranges")}>← Ranges</a></p><${Section} title=${html`Range <${Text} value=${id} limit=${80} />`} id="range" actions=${may("operator") && html`<button class="danger" onClick=${() => set_forgetting(true)}>Forget…</button>`}>
    <${State} found=${found} noun="The range" />
    ${one && html`<dl class="facts-list"><dt>Host</dt><dd><${Text} value=${one.host || "not known"} limit=${80} /></dd><dt>Agent</dt><dd><${Badge} state=${one.agent} /> <span class="quiet">heard <${Age} at=${one.heard_at || one.at} /></span></dd><dt>Engine</dt><dd><${Text} value=${[one.engine_version, one.store, one.platform].filter(Boolean).join(", ") || "not known"} /></dd>
      <dt>Engine id</dt><dd><code><${Text} value=${one.engine_id || "–"} limit=${80} /></code></dd></dl>
      ${one.contested && html`<p class="problem">Two agents speak for this range: its deployments wait until one is left.</p>`}
      ${one.deployments?.length > 0 && html`<p>Under way: ${one.deployments.map((key) => html`<a class="chip" key=${key} href=${link("deployments", key)}><${Text} value=${key} limit=${12} /></a>`)}</p>`}`}
    <h3>What it should have</h3><${State} found=${drift} noun="The comparison" />
    ${drift.data && html`<${Table} label="Desired images" columns=${columns} rows=${drift.data.items} row_key=${(row) => row.reference} empty="Nothing was deployed to it." />`}
    ${unreferenced.data?.images.length > 0 && html`<h3>Unreferenced</h3><ul class="plain">${unreferenced.data.images.slice(0, 200).map((row) => html`<li key=${row.image_id ?? row.local_id}><${Name} reference=${row.references.join(", ") || row.image_id || row.local_id} /> <span class="quiet">${row.size_bytes ? bytes(row.size_bytes) : ""}</span></li>`)}</ul>`}
    ${one?.images?.length > 0 && html`<h3>All its images</h3><ul class="plain columns">${one.images.slice(0, 500).map((row) => html`<li key=${row.reference}><${Name} reference=${row.reference} /> <span class="quiet">${bytes(row.size_bytes)}</span></li>`)}</ul>`}
    ${forgetting && html`<${Forget} id=${id} alive=${one?.agent === "alive"} on_close=${() => set_forgetting(false)} />`}
  </${Section}>`;
}

function Forget({ id, alive, on_close }) {
  const forget = useCommand(async () => { await remove(with_query(path_of("ranges", id), alive ? { force: true } : {})); location.hash = link("ranges"); return true; });
  return html`<${Dialog} title=${`Forget ${plain(id, 80)}?`} on_close=${on_close}>
    <p>What it should have is forgotten, and its open deployments end. ${alive ? html`<strong>Its agent is alive:</strong> it will report again.` : "Its agent is away."}</p><${Failure} error=${forget.error} />
    <div class="buttons"><form method="dialog"><button>Keep</button></form><button class="danger" disabled=${forget.busy} onClick=${() => forget.run()}>Forget</button></div></${Dialog}>`;
}

// The hosts of the installation, above the ranges: each one's engine, free disk and heartbeat, and what it holds.

import { offers, path_of, request, useCommand, useGet, useList } from "./net.js";
import { useState } from "./vendor/preact-hooks.js";
import { set_query } from "./router.js";
import { bytes, number, plain, short_name } from "./text.js";
import { Age, Badge, Digest, Failure, html, Name, Pager, Search, Section, State, Table, Text } from "./ui.js";

export const useHosts = () => useGet(offers("GET", "hosts") ? path_of("hosts") : null, { every: 10_000, kinds: ["ranges"] });

export function Hosts({ found, chosen, may }) {
  if (!offers("GET", "hosts")) return null;
  const choose = (host) => set_query({ host: host === chosen ? "" : host });
  const columns = [
    { key: "host", title: "Host", cell: (row) => html`<button class="link" aria-expanded=${row.host === chosen} onClick=${() => choose(row.host)}><${Text} value=${row.host} limit=${80} /></button>` },
    { key: "state", title: "State", cell: (row) => html`<${Badge} state=${row.state} />` },
    { key: "seen", title: "Heard", cell: (row) => html`<${Age} at=${row.seen_at} />` },
    { key: "machine", title: "Machine", cell: (row) => html`<${Text} value=${row.machine} limit=${60} />` },
    { key: "engine", title: "Engine", cell: (row) => (row.error ? html`<span class="problem"><${Text} value=${row.error} limit=${200} /></span>` : html`<${Text} value=${[row.engine_version, row.store, row.platform].filter(Boolean).join(", ") || "–"} limit=${80} />`) },
    { key: "images", title: "Images", number: true, cell: (row) => html`${number(row.images)} <span class="quiet">${bytes(row.images_bytes)}</span>` },
    { key: "ranges", title: "Ranges", number: true, cell: (row) => number(row.ranges) },
    { key: "free", title: "Free disk", number: true, cell: (row) => bytes(row.free_bytes) },
  ];
  return html`<${Section} title="Hosts" id="hosts"><${State} found=${found} noun="The list of hosts" />
    ${found.data && html`<${Table} label="Hosts" columns=${columns} rows=${found.data.items} row_key=${(row) => row.host} empty="No host has reported yet: each does so by its registry-pusher." details=${(row) => row.host === chosen && html`<${Holdings} key=${row.host} host=${row.host} may=${may} />`} />`}
  </${Section}>`;
}

const IN_REGISTRY = { same: "yes", other: "other", no: "no" };

// What one host holds, and a push of it from there.
function Holdings({ host, may }) {
  const [text, set_text] = useState("");
  const list = useList(path_of("hosts", host, "images"), { limit: 20, q: text }, { every: 15_000, kinds: ["images"], template: "hosts/{}/images" });
  const push = useCommand(async (reference) => (await request("POST", path_of("registry", "push-many"), { body: { references: [reference], host } })).data);
  const refused = push.result?.refused?.[0];
  const columns = [
    { key: "reference", title: "Image", cell: (row) => html`<${Name} reference=${row.reference} />` },
    { key: "id", title: "Image id", cell: (row) => html`<${Digest} value=${row.image_id ?? row.local_id} />` },
    { key: "size", title: "Size", number: true, cell: (row) => bytes(row.size_bytes) },
    { key: "announced", title: "Announced", cell: (row) => (row.announced_at ? html`<${Age} at=${row.announced_at} />` : html`<span class="quiet">found there</span>`) },
    { key: "registry", title: "In the registry", cell: (row) => html`<${Badge} state=${IN_REGISTRY[row.registry]} />` },
    { key: "push", title: "Push", cell: (row) => may("operator") && row.registry !== "same" && html`<button disabled=${push.busy} aria-label=${`Push ${plain(short_name(row.reference), 160)}`} onClick=${() => push.run(row.reference)}>Push</button>` },
  ];
  return html`<div class="actions"><strong>Images on host <${Text} value=${host} limit=${80} /></strong><${Search} label="Search its images" value=${text} on_change=${set_text} /></div>
    <${State} found=${list} noun="What it holds" /><${Failure} error=${push.error ?? (refused && { message: refused.message })} />
    ${push.result?.pushes?.length > 0 && html`<p role="status">The push of <${Name} reference=${push.result.pushes[0].reference} /> was asked for.</p>`}
    ${list.rows && html`<${Table} label="Images of the host" columns=${columns} rows=${list.rows} row_key=${(row) => row.reference} empty=${text ? "No image fits." : "Nothing."} /><${Pager} list=${list} noun="image" />`}`;
}

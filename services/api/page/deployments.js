// The tab Deployments: the class at a glance, each range and each image, and what is announced.

import { useState } from "./vendor/preact-hooks.js";
import { fresh_key, path_of, post, useCommand, useGet, useList, with_query } from "./net.js";
import { useLive } from "./live.js";
import { link, set_query } from "./router.js";
import { bytes, duration, number, percent, plain, plural, rate, short_name } from "./text.js";
import { Age, Badge, Bar, Digest, Failure, html, Name, Pager, Search, Section, Select, State, Table, Text, Transfer } from "./ui.js";

const ENDED = new Set(["ready", "failed", "cancelled", "succeeded"]);
const HOW = { pulled: "pulled", loaded: "by tar", present: "was there", retagged: "named only", mounted: "mounted" };

export function Deployments({ place, may }) {
  if (place.id?.startsWith("plans/")) return html`<${OnePlan} id=${place.id.slice(6)} />`;
  if (place.id) return html`<${OneDeployment} id=${place.id} may=${may} />`;
  return html`<${Class} place=${place} />
    ${may("operator") && html`<${Deploy} />`}
    <${List} place=${place} />
    <${Plans} may=${may} />`;
}

// ---- the class ---------------------------------------------------------------------------------------------------

function Class({ place }) {
  const { image = "" } = place.query;
  const found = useGet(with_query(path_of("class"), { image }), { every: 3_000, kinds: ["deployments"] });
  const { transfers } = useLive();
  const view = found.data;
  const of_cell = (cell) => (cell.transfer_id ? transfers.get(cell.transfer_id) : null);
  const lefts = (view?.ranges ?? []).flatMap((range) => range.images).map((cell) => of_cell(cell)?.seconds_left).filter((one) => typeof one === "number");
  const left = view && view.ready < view.total && lefts.length ? Math.max(...lefts) : null;
  const references = [...new Set((view?.ranges ?? []).flatMap((range) => range.images.map((cell) => cell.reference)))].sort();
  const [wide, set_wide] = useState(false);
  const columns = wide ? references : references.slice(0, 12);
  return html`<${Section} title="Is the class ready?" id="class" actions=${html`<${Search} label="Only this image" value=${image} on_change=${(text) => set_query({ image: text })} />`}>
    <${State} found=${found} noun="The class" />
    ${view && (view.total === 0 ? html`<p class="empty">No range has a deployment yet. Ask for one below, or with <code>cyroid-images deploy RANGE IMAGE…</code></p>` : html`
      <p class="headline" role="status"><strong>${number(view.ready)} of ${plural(view.total, "range")} ready</strong>${view.failed ? html`, <span class="bad-text">${number(view.failed)} failed</span>` : ""}${left !== null ? `, last one in about ${duration(left)}` : awaited(view)}</p>
      <${Bar} done=${view.ready} total=${view.total} label="ranges that are ready" tone="tall" />
      <div class="scroll grid-scroll" tabindex="0" role="group" aria-label="Ranges and images"><table class="grid"><caption class="sr">Each range, and how far each image is there</caption>
        <thead><tr><th scope="col">Range</th>${columns.map((name) => html`<th scope="col" key=${name}><${Name} reference=${name} limit=${40} /></th>`)}</tr></thead>
        <tbody>${view.ranges.map((range) => html`<tr key=${range.range_id}><th scope="row"><a href=${link("deployments", range.deployment_id)}><${Text} value=${range.range_id} limit=${60} /></a></th>
          ${columns.map((name) => html`<td key=${name}><${Cell} cell=${range.images.find((one) => one.reference === name)} transfer=${of_cell(range.images.find((one) => one.reference === name) ?? {})} /></td>`)}</tr>`)}</tbody></table></div>
      ${references.length > 12 && html`<button class="link" onClick=${() => set_wide(!wide)}>${wide ? "Fewer images" : `All ${references.length} images`}</button>`}
      ${view.left_off > 0 && html`<p class="quiet">${plural(view.left_off, "range")} more are not shown: search for an image.</p>`}`)}
  </${Section}>`;
}

// Why nobody can say yet how long it takes.
function awaited(view) {
  const open = view.ranges.filter((range) => range.state === "open");
  const away = open.filter((range) => range.images.some((cell) => cell.agent_away_since)).length;
  if (!open.length) return "";
  return away === open.length ? `, ${plural(away, "range")} without an agent` : ", how long it takes is not known yet";
}

// One image of one range, in few words.
function Cell({ cell, transfer }) {
  if (!cell) return html`<span class="quiet" aria-label="not asked for">·</span>`;
  const words = waiting_words(cell, transfer);
  const stalled = transfer?.stalled;
  const running = transfer && !ENDED.has(cell.state);
  return html`<span class="cell"><${Badge} state=${stalled ? "stalled" : cell.state}>${stalled ? "stalled" : cell.state}</${Badge}>
    ${running && html`<${Bar} done=${transfer.done_bytes} total=${transfer.total_bytes} stalled=${stalled} label=${`${cell.reference}: ${percent(transfer.done_bytes, transfer.total_bytes)} %`} />`}
    ${words && html`<small title=${plain(words, 400)}><${Text} value=${words} limit=${90} /></small>`}</span>`;
}

function waiting_words(cell, transfer) {
  if (cell.state === "ready") return HOW[cell.how] ?? "";
  if (cell.error) return cell.error.message;
  if (cell.agent_away_since) return "waits for the range's agent";
  if (cell.queue_position) return `number ${cell.queue_position} in the queue`;
  if (cell.state === "pushing") return "into the registry first";
  if (transfer && !ENDED.has(cell.state)) {
    const left = typeof transfer.seconds_left === "number" ? `${duration(transfer.seconds_left)} left` : "";
    return [`${percent(transfer.done_bytes, transfer.total_bytes)} %`, rate(transfer.bytes_per_second), left, cell.by_tar ? "by tar" : ""].filter(Boolean).join(" · ");
  }
  return "";
}

// ---- asking for one ----------------------------------------------------------------------------------------------

const words_of = (text) => [...new Set(String(text).split(/[\s,]+/).filter(Boolean))];

function Deploy() {
  const ranges = useList(path_of("ranges"), { limit: 1000 }, { every: 60_000, kinds: ["ranges"] });
  const images = useList(path_of("registry", "images"), { limit: 1000 }, { every: 60_000, kinds: ["images"] });
  const deploy = useCommand(async (range_ids, names, priority) => {
    const asked = [];
    for (const range_id of range_ids) {
      asked.push(await post(path_of("deployments"), { range_id, images: names, priority }, { "Idempotency-Key": fresh_key() }));
    }
    return asked;
  });
  const announce = useCommand((range_ids, names) => post(path_of("plans"), { range_ids, images: names }, { "Idempotency-Key": fresh_key() }));
  const fields = (form) => {
    const data = new FormData(form);
    return [words_of(data.get("ranges")), words_of(data.get("images")), Number(data.get("priority"))];
  };
  const submit = (event) => { event.preventDefault(); deploy.run(...fields(event.currentTarget)); };
  const add = (name) => (event) => {
    const field = event.currentTarget.form.elements[name];
    if (event.currentTarget.value) field.value = words_of(`${field.value} ${event.currentTarget.value}`).join(" ");
    event.currentTarget.value = "";
  };
  const alive = (ranges.data?.items ?? []).map((one) => one.range_id);
  return html`<${Section} title="Deploy" id="deploy"><form class="row" onSubmit=${submit}>
    <label class="wide">Ranges<input name="ranges" required maxlength="65536" autocomplete="off" spellcheck=${false} placeholder="range-1 range-2" /></label>
    <label class="select"><span>Add a range</span><select onChange=${add("ranges")}><option value="">…</option>${alive.length > 1 && html`<option value=${alive.join(" ")}>all ${alive.length}</option>`}${alive.map((id) => html`<option key=${id} value=${id}>${plain(id, 60)}</option>`)}</select></label>
    <label class="wide">Images<input name="images" required maxlength="65536" autocomplete="off" spellcheck=${false} placeholder="web:1 db:2" /></label>
    <label class="select"><span>Add an image</span><select onChange=${add("images")}><option value="">…</option>${(images.data?.items ?? []).filter((one) => one.reference).map((one) => html`<option key=${one.reference} value=${one.reference}>${plain(short_name(one.reference), 80)}</option>`)}</select></label>
    <label class="select"><span>Priority</span><select name="priority">${[9, 8, 7, 6, 5, 4, 3, 2, 1, 0].map((one) => html`<option key=${one} value=${one} selected=${one === 5}>${one}${one === 9 ? " (first)" : one === 5 ? " (usual)" : one === 0 ? " (last)" : ""}</option>`)}</select></label>
    <button class="primary" disabled=${deploy.busy}>Deploy</button>
    <button type="button" disabled=${announce.busy} title="Push these images now and deploy them ahead of the class" onClick=${(event) => { if (event.currentTarget.form.reportValidity()) announce.run(...fields(event.currentTarget.form).slice(0, 2)); }}>Announce as a plan</button></form>
    <div aria-live="polite">${deploy.result && html`<p class="done">${plural(deploy.result.length, "deployment")} asked for${deploy.result.length === 1 ? html`: <a href=${link("deployments", deploy.result[0].deployment_id)}>show it</a>` : ""}.</p>`}
      ${announce.result && html`<p class="done">The plan is announced: <a href=${link("deployments", `plans/${announce.result.plan_id}`)}>show it</a>.</p>`}</div>
    <${Failure} error=${deploy.error ?? announce.error} /></${Section}>`;
}

// ---- lists -------------------------------------------------------------------------------------------------------

const count_of = (images) => (Array.isArray(images) ? images.length : images);
const ready_of = (row) => (Array.isArray(row.images) ? row.images.filter((one) => one.state === "ready").length : row.ready);
const names_of = (row) => (Array.isArray(row.images) ? row.images.map((one) => one.reference) : row.references ?? []);

function List({ place }) {
  const { dq = "", dstate = "", dsort = "-requested" } = place.query;
  const list = useList(path_of("deployments"), { limit: 50, q: dq, state: dstate, sort: dsort.replace("-", ""), order: dsort.startsWith("-") ? "desc" : "asc" }, { every: 10_000, kinds: ["deployments"] });
  const states = Object.entries(list.counts).sort();
  const columns = [
    { key: "range", title: "Range", sort: "range", cell: (row) => html`<a href=${link("ranges", row.range_id)}><${Text} value=${row.range_id} limit=${80} /></a>` },
    { key: "images", title: "Images", cell: (row) => html`<a href=${link("deployments", row.deployment_id)}>${names_of(row).slice(0, 2).map((name, at) => html`${at ? ", " : ""}<${Name} reference=${name} limit=${60} />`)}${count_of(row.images) > 2 ? ` and ${count_of(row.images) - 2} more` : ""}</a>` },
    { key: "state", title: "State", sort: "state", cell: (row) => html`<${Badge} state=${row.state} />${row.error && html`<small class="bad-text"><${Text} value=${row.error.message} limit=${120} /></small>`}` },
    { key: "ready", title: "Ready", number: true, cell: (row) => `${number(ready_of(row))} of ${number(count_of(row.images))}` },
    { key: "queue", title: "Queue", number: true, cell: (row) => (row.queue_position ? `${row.queue_position}.` : "") },
    { key: "priority", title: "Priority", number: true, sort: "priority", cell: (row) => row.priority },
    { key: "asked", title: "Asked", number: true, sort: "requested", cell: (row) => html`<${Age} at=${row.requested_at} />${row.actor && html`<small class="quiet">by <${Text} value=${row.actor} limit=${40} /></small>`}` },
    { key: "took", title: "Took", number: true, cell: (row) => duration(row.seconds) },
  ];
  return html`<${Section} title="Deployments" id="deployments" actions=${html`<${Search} label="Search deployments" value=${dq} on_change=${(text) => set_query({ dq: text })} />
      <${Select} label="State" value=${dstate} on_change=${(now) => set_query({ dstate: now })} options=${[["", "all"], ...states.map(([state, many]) => [state, `${state} (${many})`]), ...(dstate && !list.counts[dstate] ? [[dstate, dstate]] : [])]} />`}>
    <${State} found=${list} noun="The list of deployments" />
    ${list.rows && html`<${Table} label="Deployments" columns=${columns} rows=${list.rows} row_key=${(row) => row.deployment_id} sort=${dsort} on_sort=${(now) => set_query({ dsort: now })} empty=${dq || dstate ? "No deployment fits." : "There was no deployment yet."} /><${Pager} list=${list} noun="deployment" />`}
  </${Section}>`;
}

function Plans() {
  const list = useList(path_of("plans"), { limit: 20 }, { every: 15_000, kinds: ["plans"] });
  const images = (row) => (Array.isArray(row.images) ? row.images.length : row.images);
  const there = (row) => (Array.isArray(row.images) ? row.images.filter((one) => one.registry === "there").length : row.there);
  const ranges = (row) => (Array.isArray(row.ranges) ? row.ranges.length : row.ranges);
  const ready = (row) => (Array.isArray(row.ranges) ? row.ranges.filter((one) => one.state === "succeeded").length : row.ready_ranges);
  const columns = [
    { key: "plan", title: "Plan", cell: (row) => html`<a href=${link("deployments", `plans/${row.plan_id}`)}><${Text} value=${row.plan_id} limit=${40} /></a>` },
    { key: "state", title: "State", cell: (row) => html`<${Badge} state=${row.state} />` },
    { key: "images", title: "In the registry", number: true, cell: (row) => `${number(there(row))} of ${plural(images(row), "image")}` },
    { key: "ranges", title: "Ranges ready", number: true, cell: (row) => `${number(ready(row))} of ${number(ranges(row))}` },
    { key: "at", title: "Announced", number: true, cell: (row) => html`<${Age} at=${row.announced_at} />` },
  ];
  return html`<${Section} title="Plans" id="plans"><${State} found=${list} noun="The list of plans" />
    ${list.rows && html`<${Table} label="Plans" columns=${columns} rows=${list.rows} row_key=${(row) => row.plan_id} empty="Nothing is announced. A plan brings images to ranges ahead of a class." />`}</${Section}>`;
}

function OnePlan({ id }) {
  const found = useGet(path_of("plans", id), { every: 5_000, kinds: ["plans", "deployments"] });
  const plan = found.data;
  return html`<p><a href=${link("deployments")}>← Deployments</a></p><${Section} title=${`Plan ${plain(id, 80)}`} id="plan"><${State} found=${found} noun="The plan" />
    ${plan && html`<p><${Badge} state=${plan.state} /> <span class="quiet">announced <${Age} at=${plan.announced_at} /></span></p>
      <ul class="plain">${plan.images.map((one) => html`<li key=${one.reference}><${Badge} state=${one.registry} /> <${Name} reference=${one.reference} /> ${one.error && html`<span class="bad-text"><${Text} value=${one.error.message} /></span>`}</li>`)}</ul>
      <h3>Ranges</h3><ul class="plain">${plan.ranges.map((one) => html`<li key=${one.range_id}><${Badge} state=${one.state} /> <a href=${one.deployment_id ? link("deployments", one.deployment_id) : link("ranges", one.range_id)}><${Text} value=${one.range_id} /></a> <span class="quiet">${plural(one.ready, "image")} ready</span></li>`)}</ul>`}</${Section}>`;
}

// ---- one deployment ----------------------------------------------------------------------------------------------

function OneDeployment({ id, may }) {
  const found = useGet(path_of("deployments", id), { every: 2_000, kinds: ["deployments"] });
  const { transfers } = useLive();
  const one = found.data;
  const cancel = useCommand(async () => { await post(path_of("deployments", id, "cancel")); found.reload(); });
  const retry = useCommand(async () => { await post(path_of("deployments", id, "retry")); found.reload(); });
  const set_priority = useCommand(async (priority) => { await post(path_of("deployments", id, "priority"), { priority: Number(priority) }); found.reload(); });
  const ended = one && ENDED.has(one.state);
  const known = new Map([...(one?.transfers ?? []).map((transfer) => [transfer.transfer_id, transfer]), ...transfers]);
  const running = (one?.images ?? []).filter((image) => !ENDED.has(image.state) && known.has(image.transfer_id)).map((image) => known.get(image.transfer_id));
  const columns = [
    { key: "reference", title: "Image", cell: (image) => html`<${Name} reference=${image.reference} />` },
    { key: "state", title: "State", cell: (image) => html`<${Cell} cell=${image} transfer=${known.get(image.transfer_id)} />` },
    { key: "how", title: "Path", cell: (image) => html`${HOW[image.how] ?? (image.by_tar ? "by tar" : "–")}${image.attempt > 1 && html`<small class="quiet">try ${image.attempt}</small>`}` },
    { key: "size", title: "Size", number: true, cell: (image) => bytes(image.size_bytes) },
    { key: "received", title: "Received", number: true, cell: (image) => bytes(image.received_bytes) },
    { key: "layers", title: "Layers there before", number: true, cell: (image) => (image.layers_total ? `${image.layers_reused} of ${image.layers_total}` : "–") },
    { key: "id", title: "Image id", cell: (image) => html`<${Digest} value=${image.image_id} />` },
  ];
  return html`<p><a href=${link("deployments")}>← Deployments</a></p><${Section} title=${one ? html`Deployment to <${Text} value=${one.range_id} limit=${80} />` : "Deployment"} id="deployment" actions=${one && may("operator") && html`
      ${!ended && html`<${Select} label="Priority" value=${String(one.priority)} on_change=${(now) => set_priority.run(now)} options=${[9, 8, 7, 6, 5, 4, 3, 2, 1, 0].map((each) => [String(each), String(each)])} />`}
      ${!ended && html`<button class="danger" disabled=${cancel.busy} onClick=${() => cancel.run()}>Cancel</button>`}
      ${["failed", "cancelled"].includes(one.state) && html`<button class="primary" disabled=${retry.busy} onClick=${() => retry.run()}>Retry what is missing</button>`}`}>
    <${State} found=${found} noun="The deployment" /><${Failure} error=${cancel.error ?? retry.error ?? set_priority.error} />
    ${one && html`<dl class="facts-list"><dt>State</dt><dd><${Badge} state=${one.state} /> ${one.reason && html`<${Text} value=${one.reason} />`}</dd><dt>Id</dt><dd><code><${Text} value=${one.deployment_id} limit=${80} /></code></dd>
        <dt>Range</dt><dd><a href=${link("ranges", one.range_id)}><${Text} value=${one.range_id} limit=${80} /></a></dd><dt>Asked</dt><dd><${Age} at=${one.requested_at} />${one.actor && html` by <${Text} value=${one.actor} />`}, priority ${one.priority}</dd>
        <dt>${ended ? "Took" : "For"}</dt><dd>${duration(one.seconds)}</dd></dl>
      ${one.error && html`<p class="problem"><${Text} value=${one.error.message} limit=${600} /></p>`}
      <${Table} label="Images of the deployment" columns=${columns} rows=${one.images} row_key=${(image) => image.reference} empty="It has no images." />
      ${one.images.filter((image) => image.error).map((image) => html`<p class="problem" key=${image.reference}><${Name} reference=${image.reference} />: <${Text} value=${image.error.message} limit=${600} /></p>`)}
      ${running.map((transfer) => html`<${Transfer} key=${transfer.transfer_id} transfer=${transfer} open />`)}`}
  </${Section}>`;
}

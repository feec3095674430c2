// Build, import and promote on the page: one form, and how far each of those that were asked for is.

import { useState } from "./vendor/preact-hooks.js";
import { fresh_key, offers, path_of, post, request, useCommand, useList, with_query } from "./net.js";
import { bytes, number, plain, plural } from "./text.js";
import { Age, Badge, Bar, Failure, html, Name, Section, Select, State, Text } from "./ui.js";

const WAYS = [["archive", "Import a file"], ["pull", "Import by name"], ["build", "Build"], ["container", "Promote a container"], ["image", "Promote an image"]];
const CHOICES = [["auto", "as the rules say"], ["always", "yes"], ["ask", "ask first"], ["never", "no"]];
const HELP = {
  archive: "An archive of docker save, packed or not, or a CYROID blueprint zip.",
  pull: "The host's engine pulls it.",
  build: "A tar of the context, packed or not, with a Dockerfile in it.",
  container: "The container's changes become an image; it stands still meanwhile.",
  image: "The image gets another name.",
};
const TYPES = { zip: "application/zip", gz: "application/gzip", tgz: "application/gzip", zst: "application/zstd", xz: "application/x-xz", bz2: "application/x-bzip2" };
const type_of = (file) => TYPES[file.name.toLowerCase().split(".").at(-1)] ?? "application/x-tar";

async function upload(path, query, file) {
  const headers = { "Content-Type": type_of(file), "Idempotency-Key": fresh_key() };
  return (await request("POST", with_query(path, query), { raw: file, headers })).data;
}

// One request for what the form says.
async function start(way, data) {
  const text = (name) => String(data.get(name) ?? "").trim();
  const file = data.get("file"), reference = text("name"), key = { "Idempotency-Key": fresh_key() };
  const push = data.has("choice") ? text("choice") : data.has("push") ? "always" : "never";
  if (way === "archive") return upload(path_of("images", "import", "archive"), { reference, origin: file.name.slice(0, 200), push }, file);
  if (way === "build") return upload(path_of("images", "build"), { reference, dockerfile: text("dockerfile"), target: text("target"), push }, file);
  if (way === "pull") return post(path_of("images", "import"), { reference, push }, key);
  return post(path_of("images", "promote"), { reference, [way]: text("source"), push }, key);
}

export function Add() {
  const [way, set_way] = useState("archive");
  const add = useCommand((data) => start(way, data));
  if (!offers("POST", "images/build")) return null;
  const is_import = way === "archive" || way === "pull", has_file = way === "archive" || way === "build";
  const submit = async (event) => {
    event.preventDefault();
    const form = event.currentTarget;
    if (await add.run(new FormData(form))) form.reset();
  };
  return html`<${Section} title="Add an image" id="add">
    <form class="row" onSubmit=${submit} key=${way}>
      <${Select} label="How" value=${way} on_change=${set_way} options=${WAYS} />
      ${has_file && html`<label class="wide">File<input type="file" name="file" required /></label>`}
      ${(way === "container" || way === "image") && html`<label class="wide">${way === "container" ? "Container" : "Image"}<input name="source" required maxlength="256" autocomplete="off" spellcheck=${false} /></label>`}
      <label class="wide">${way === "archive" ? "Name, if not its own" : "Name"}<input name="name" required=${way !== "archive"} maxlength="1024" autocomplete="off" spellcheck=${false} placeholder="name:tag" /></label>
      ${way === "build" && html`<label>Dockerfile<input name="dockerfile" maxlength="1024" placeholder="Dockerfile" spellcheck=${false} /></label><label>Target<input name="target" maxlength="200" placeholder="last stage" spellcheck=${false} /></label>`}
      ${is_import ? html`<label class="tick"><input type="checkbox" name="push" checked /> Push to registry</label>`
        : html`<label class="select"><span>Push to registry</span><select name="choice">${CHOICES.map(([key, text]) => html`<option key=${key} value=${key}>${text}</option>`)}</select></label>`}
      <button class="primary" disabled=${add.busy}>${add.busy ? "Under way…" : way === "build" ? "Build" : is_import ? "Import" : "Promote"}</button>
    </form>
    <p class="quiet">${HELP[way]}</p>
    <div aria-live="polite">${add.result && html`<p class="done">${add.result.state === "done" ? html`Done: ${(add.result.images ?? []).map((one) => html`<${Name} key=${one.reference} reference=${one.reference} /> `)}` : "It is under way; its line below says how far it is."}</p>`}</div>
    <${Failure} error=${add.error} />
    <${Ingests} />
  </${Section}>`;
}

function Ingests() {
  const list = useList(path_of("ingests"), { limit: 5 }, { every: 5_000, kinds: ["ingests"] });
  if (!list.rows?.length) return html`<${State} found=${list} noun="The list of imports" />`;
  return html`<${State} found=${list} noun="The list of imports" /><ul class="plain" aria-label="Builds, imports and promotes">${list.rows.map((one) => html`<li key=${one.id}>
    <${Badge} state=${one.state} /> ${plain(one.kind, 20)} <${Name} reference=${one.reference || one.origin} />
    <span class="quiet">${one.actor && html`by <${Text} value=${one.actor} limit=${64} /> · `}${one.state === "done" && `${plural(one.images, "image")} · `}<${Age} at=${one.ended_at ?? one.started_at} /></span>
    ${one.state === "receiving" && html`<${Bar} done=${one.received_bytes} total=${one.total_bytes} label=${`upload of ${one.reference || one.origin}`} /><span class="facts">${bytes(one.received_bytes)}${one.total_bytes ? ` of ${bytes(one.total_bytes)}` : ""}</span>`}
    ${one.note && html`<small class="quiet"><${Text} value=${one.note} limit=${160} /></small>`}
    ${one.error && html`<span class="bad-text"><${Text} value=${one.error.message} limit=${400} /></span>`}</li>`)}</ul>
    ${list.total > list.rows.length && html`<p class="quiet">The latest ${number(list.rows.length)} of ${number(list.total)}.</p>`}`;
}

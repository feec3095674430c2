// The tab Settings: what operators may change while everything runs, and what this process was started with.

import { useEffect, useState } from "./vendor/preact-hooks.js";
import { path_of, replace, useCommand, useGet } from "./net.js";
import { plain } from "./text.js";
import { Reclaim, Retention } from "./rules.js";
import { Failure, html, Search, Section, State, Table, Text } from "./ui.js";

export function Settings({ may }) {
  return html`<${AutoPush} may=${may} /><${Retention} may=${may} /><${Reclaim} may=${may} /><${Variables} />`;
}

const CHOICES = [["", "as CYROID_AUTO_PUSH says"], ["true", "yes"], ["false", "no"]];
const choice = (value) => (value === true ? "true" : value === false ? "false" : "");
const chosen = (text) => (text === "true" ? true : text === "false" ? false : null);

function AutoPush({ may }) {
  const found = useGet(path_of("settings", "auto-push"), { every: 0 });
  const [draft, set] = useState(null);
  useEffect(() => { if (found.data) set({ push: found.data.push ?? null, rules: found.data.rules ?? [] }); }, [JSON.stringify(found.data)]);
  const save = useCommand(async (body) => { const now = await replace(path_of("settings", "auto-push"), body, found.etag); found.reload(); return now; });
  const change = (at, part) => set({ ...draft, rules: draft.rules.map((rule, index) => (index === at ? { ...rule, ...part } : rule)) });
  const submit = (event) => { event.preventDefault(); save.run(draft.push === null ? { rules: draft.rules } : draft); };
  const fixed = !may("admin");
  return html`<${Section} title="Auto-push" id="auto-push"><${State} found=${found} noun="The setting" />
    <p class="quiet">Whether images go into the registry by themselves after a build, import or promote. The first pattern that fits a full name (<code>docker.io/team/web:1</code>) decides.</p>
    ${draft && html`<form class="stack-form" onSubmit=${submit}><fieldset disabled=${fixed}><legend class="sr">Auto-push</legend>
      <label class="select"><span>All images</span><select value=${choice(draft.push)} onChange=${(event) => set({ ...draft, push: chosen(event.currentTarget.value) })}>${CHOICES.map(([key, text]) => html`<option key=${key} value=${key} selected=${key === choice(draft.push)}>${text}</option>`)}</select></label>
      ${draft.rules.map((rule, at) => html`<div class="row" key=${at}><label class="wide">Pattern ${at + 1}<input required maxlength="512" spellcheck=${false} value=${rule.pattern} onInput=${(event) => change(at, { pattern: event.currentTarget.value })} /></label>
        <label class="select"><span>Push</span><select value=${choice(rule.push)} onChange=${(event) => change(at, { push: event.currentTarget.value === "true" })}>${CHOICES.slice(1).map(([key, text]) => html`<option key=${key} value=${key} selected=${key === choice(rule.push)}>${text}</option>`)}</select></label>
        <button type="button" aria-label=${`Remove pattern ${at + 1}`} onClick=${() => set({ ...draft, rules: draft.rules.filter((_, index) => index !== at) })}>Remove</button></div>`)}
      <div class="buttons"><button type="button" onClick=${() => set({ ...draft, rules: [...draft.rules, { pattern: "", push: true }] })}>Add a pattern</button><button class="primary" disabled=${save.busy}>Save</button></div></fieldset>
      ${fixed && html`<p class="quiet">Only an administrator can change it.</p>`}
      ${save.result && html`<p class="done" role="status">Saved.</p>`}<${Failure} error=${save.error} /></form>`}</${Section}>`;
}

function Variables() {
  const found = useGet(path_of("settings"), { every: 0 });
  const [words, set] = useState("");
  const rows = (found.data?.items ?? []).filter((one) => `${one.variable} ${one.meaning}`.toLowerCase().includes(words.toLowerCase()));
  const columns = [
    { key: "variable", title: "Variable", cell: (row) => html`<code>${plain(row.variable)}</code>` },
    { key: "value", title: "Value", cell: (row) => html`<strong class=${row.value === row.default ? "plain-value" : ""}><${Text} value=${row.value === "" ? "–" : row.value} limit=${160} /></strong>` },
    { key: "meaning", title: "Meaning", cell: (row) => html`<${Text} value=${row.meaning} limit=${600} />` },
  ];
  return html`<${Section} title="Variables of the API's process" id="variables" actions=${html`<${Search} label="Search settings" value=${words} on_change=${set} />`}><${State} found=${found} noun="The settings" />
    ${found.data && html`<${Table} label="Settings" columns=${columns} rows=${rows} row_key=${(row) => row.variable} empty="No setting fits." />`}</${Section}>`;
}

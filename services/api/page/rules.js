// Rules by pattern that an administrator edits while everything runs: retention in the registry, reclaim on the host.

import { useEffect, useState } from "./vendor/preact-hooks.js";
import { path_of, post, replace, useCommand, useGet } from "./net.js";
import { bytes, number, plural } from "./text.js";
import { Badge, Dialog, Failure, html, Name, Section, State, Text } from "./ui.js";

const GIGABYTE = 1e9;
// An empty field leaves its key out; `unit` is what one of the field's numbers stands for.
const RETENTION = [
  { key: "keep_last", title: "Newest tags", min: 1, step: 1 },
  { key: "keep_days", title: "Days since use", min: 0.01, step: "any" },
  { key: "cap_bytes", title: "At most GB", min: 0, step: "any", unit: GIGABYTE },
];
const RECLAIM = [{ key: "after_days", title: "Days after the push", min: 0, step: "any", kept: true }];

const shown = (value, { unit = 1 }) => (value === undefined || value === null ? "" : String(value / unit));
// What was typed, as the rule has it: an empty field is no condition, or (`kept`) never.
function typed(text, { unit = 1, kept }) {
  if (text === "") return kept ? null : undefined;
  return unit === 1 ? Number(text) : Math.round(Number(text) * unit);
}

export function Retention({ may }) {
  return html`<${Rules} id="retention" title="Retention" path=${path_of("registry", "retention")} fields=${RETENTION} fresh=${{ keep_last: 5 }} may=${may}
    about=${html`The first pattern that fits an image's full name decides; an image that none fits stays. A rule keeps the newest tags of each repository and what was used within the days; above its gigabytes the least recently used go. What a range, a plan or an open deployment needs always stays.`}
    trial=${{ look: () => post(path_of("registry", "retention", "run"), { dry_run: true }), work: () => post(path_of("registry", "retention", "run"), { dry_run: false }), rows: (said) => said.verdicts.filter((one) => !one.keep), done: "will be deleted", title: "Delete what the rules do not keep" }} />`;
}

export function Reclaim({ may }) {
  return html`<${Rules} id="reclaim" title="Copies on the host's engine" path=${path_of("settings", "reclaim")} fields=${RECLAIM} fresh=${{ after_days: 7 }} may=${may}
    about=${html`An image whose full name fits is freed from the host's engine so many days after its push; without days it stays. The registry's copy is read back first, an image in use never goes, and a build brings its base image back.`}
    trial=${{ look: (rules) => post(path_of("images", "reclaim"), { patterns: patterns_of(rules), dry_run: true }), work: (rules) => post(path_of("images", "reclaim"), { patterns: patterns_of(rules), dry_run: false }), rows: (said) => said.images, done: "freed", title: "Free the copies that the patterns fit" }} />`;
}

const patterns_of = (rules) => rules.filter((one) => one.after_days !== null).map((one) => one.pattern);

function Rules({ id, title, path, fields, fresh, about, trial, may }) {
  const found = useGet(path, { every: 0 });
  const [draft, set] = useState(null);
  const [trying, set_trying] = useState(false);
  const saved = found.data?.rules ?? [];
  useEffect(() => { if (found.data) set(saved); }, [JSON.stringify(found.data)]); // asked again, the same rules leave the draft alone
  const save = useCommand(async () => { const now = await replace(path, { rules: draft }, found.etag); found.reload(); return now; });
  const change = (at, part) => set((now) => now.map((rule, index) => (index === at ? JSON.parse(JSON.stringify({ ...rule, ...part })) : rule)));
  const changed = draft && JSON.stringify(draft) !== JSON.stringify(saved);
  const fixed = !may("admin");
  return html`<${Section} title=${title} id=${id}><${State} found=${found} noun="The rules" />
    <p class="quiet">${about}</p>
    ${draft && html`<form class="stack-form" onSubmit=${(event) => { event.preventDefault(); save.run(); }}><fieldset disabled=${fixed}><legend class="sr">${title}</legend>
      ${!draft.length && html`<p class="empty">There are no rules: everything stays.</p>`}
      ${draft.map((rule, at) => html`<div class="row" key=${at}><label class="wide">Pattern ${at + 1}<input required maxlength="512" spellcheck=${false} value=${rule.pattern} onInput=${(event) => change(at, { pattern: event.currentTarget.value })} /></label>
        ${fields.map((field) => html`<label key=${field.key}>${field.title}<input type="number" min=${field.min} step=${field.step} value=${shown(rule[field.key] ?? (field.kept && rule[field.key] === undefined ? 0 : undefined), field)} onInput=${(event) => change(at, { [field.key]: typed(event.currentTarget.value, field) })} /></label>`)}
        <button type="button" aria-label=${`Remove rule ${at + 1} of ${title}`} onClick=${() => set(draft.filter((_, index) => index !== at))}>Remove</button></div>`)}
      <div class="buttons"><button type="button" onClick=${() => set([...draft, { pattern: "", ...fresh }])}>Add a rule</button><button class="primary" disabled=${save.busy || !changed}>Save</button>
        <button type="button" disabled=${changed || !saved.length} onClick=${() => set_trying(true)}>Apply now…</button></div></fieldset>
      ${fixed && html`<p class="quiet">Only an administrator can change it.</p>`}
      ${changed && html`<p class="quiet" role="status">Not saved yet.</p>`}
      ${save.result && !changed && html`<p class="done" role="status">Saved.</p>`}<${Failure} error=${save.error} /></form>`}
    ${trying && html`<${Trial} rules=${saved} trial=${trial} on_close=${() => set_trying(false)} />`}</${Section}>`;
}

// What the saved rules would do, and then, after another click, what they did.
function Trial({ rules, trial, on_close }) {
  const look = useCommand(() => trial.look(rules));
  const work = useCommand(() => trial.work(rules));
  useEffect(() => { look.run(); }, []);
  const said = work.result ?? look.result;
  const rows = said ? trial.rows(said) : [];
  return html`<${Dialog} title=${trial.title} on_close=${on_close}>
    <div aria-live="polite">${(look.busy || work.busy) && html`<p class="quiet">Looking…</p>`}
      ${said && !said.ended && html`<p class="quiet">It goes on, and there is no answer yet.</p>`}
      ${said?.ended && html`<p><strong>${work.result ? "" : "A trial: "}${plural(rows.length, "image")}, ${bytes(said.freed_bytes)}</strong>${said.kept !== undefined ? `; ${number(said.kept)} stay` : ""}.</p>`}</div>
    <ul class="plain scroll-list">${rows.slice(0, 500).map((one) => html`<li key=${one.reference}><${Name} reference=${one.reference} /> <${Badge} state=${one.freed === false ? "stays" : work.result ? trial.done : "would go"} />
      <span class="quiet"><${Text} value=${one.reason} limit=${200} /></span></li>`)}</ul>
    <${Failure} error=${look.error ?? work.error} />
    <div class="buttons"><form method="dialog"><button>${work.result ? "Close" : "Keep all"}</button></form>
      ${!work.result && html`<button class="danger" disabled=${look.busy || work.busy || !rows.length} onClick=${() => work.run()}>Apply</button>`}</div>
  </${Dialog}>`;
}

// Questions: "Push to registry?", asked once per batch on every open page, and kept in a list until somebody answers.

import { useState } from "./vendor/preact-hooks.js";
import { offers, path_of, post, Problem, useCommand, useList } from "./net.js";
import { link } from "./router.js";
import { bytes, plural } from "./text.js";
import { Age, Badge, Failure, html, Name, Pager, Section, State, Table, Text } from "./ui.js";

// Images that appeared within this time of one another are one question.
const BATCH_MS = 10_000;
const can_skip = () => offers("POST", "prompts/{}/answer");

export function usePrompts() {
  const list = useList(path_of("prompts"), { limit: 200 }, { every: 5_000, kinds: ["prompts"] });
  return { ...list, list, rows: list.rows ?? [] };
}

// Answers each; what another person answered first is said, and is no failure.
function useAnswer(prompts) {
  const answer = useCommand(async (rows, word) => {
    const others = [];
    for (const row of rows) {
      try {
        if (can_skip()) await post(path_of("prompts", row.id, "answer"), { answer: word });
        else await post(path_of("registry", "push"), { reference: row.reference }); // the push is the answer
      } catch (error) {
        if (!(error instanceof Problem) || ![404, 409].includes(error.status)) throw error;
        others.push({ reference: row.reference, said: error.message });
      }
    }
    prompts.reload();
    return others;
  });
  return answer;
}

function batches(rows) {
  const found = [];
  for (const row of [...rows].sort((one, other) => Date.parse(one.asked_at) - Date.parse(other.asked_at))) {
    const last = found.at(-1);
    if (last && Date.parse(row.asked_at) - Date.parse(last.at(-1).asked_at) < BATCH_MS) last.push(row);
    else found.push([row]);
  }
  return found;
}

function Toast({ rows, prompts }) {
  const answer = useAnswer(prompts);
  return html`<div class="toast" role="group" aria-label="Push to registry?">
    <p><strong>Push to registry?</strong> ${rows.length === 1 ? html`<${Name} reference=${rows[0].reference} limit=${80} />` : html`<a href=${link("prompts")}>${plural(rows.length, "image")}</a>`}
      <span class="quiet"> ${bytes(rows.reduce((sum, row) => sum + (row.size_bytes ?? 0), 0))}</span></p>
    <div class="buttons"><button class="primary" disabled=${answer.busy} onClick=${() => answer.run(rows, "push")}>Push</button>
      ${can_skip() && html`<button disabled=${answer.busy} onClick=${() => answer.run(rows, "skip")}>Skip</button>`}</div>
    <${Failure} error=${answer.error} /></div>`;
}

export function Toasts({ prompts, may }) {
  const found = may("operator") ? batches(prompts.rows) : [];
  return html`<div class="toasts" role="region" aria-label="Open questions" aria-live="polite">
    ${found.slice(0, 3).map((rows) => html`<${Toast} key=${rows[0].id + rows[0].asked_at} rows=${rows} prompts=${prompts} />`)}
    ${found.length > 3 && html`<p class="toast"><a href=${link("prompts")}>${plural(found.length - 3, "more question")}</a></p>`}</div>`;
}

export function Prompts({ prompts, may }) {
  const [selected, set_selected] = useState([]);
  const answer = useAnswer(prompts);
  const answered = useList(offers("GET", "event-log") ? path_of("event-log") : null, { limit: 20, type: "image.prompt_answered" }, { every: 30_000, kinds: ["prompts"] });
  const chosen = prompts.rows.filter((row) => selected.includes(row.id));
  const act = async (word) => { await answer.run(chosen, word); set_selected([]); };
  const columns = [
    { key: "reference", title: "Image", cell: (row) => html`<${Name} reference=${row.reference} />` },
    { key: "origin", title: "Came by", cell: (row) => html`<${Text} value=${row.origin || "–"} limit=${40} />` },
    { key: "size", title: "Size", number: true, cell: (row) => bytes(row.size_bytes) },
    { key: "asked", title: "Asked", number: true, cell: (row) => html`<${Age} at=${row.asked_at} />` },
    { key: "answer", title: "Answer", cell: (row) => may("operator") && html`<span class="buttons"><button disabled=${answer.busy} onClick=${() => answer.run([row], "push")}>Push</button>${can_skip() && html`<button disabled=${answer.busy} onClick=${() => answer.run([row], "skip")}>Skip</button>`}</span>` },
  ];
  return html`<${Section} title="Push to registry?" id="prompts" actions=${may("operator") && html`
      <button class="primary" disabled=${!chosen.length || answer.busy} onClick=${() => act("push")}>Push ${chosen.length || ""} selected</button>${can_skip() && html`<button disabled=${!chosen.length || answer.busy} onClick=${() => act("skip")}>Skip selected</button>`}`}>
    <${State} found=${prompts} noun="The list of questions" /><${Failure} error=${answer.error} />
    ${answer.result?.length > 0 && html`<ul class="plain" role="status">${answer.result.map((one) => html`<li key=${one.reference}><${Name} reference=${one.reference} />: <${Text} value=${one.said} /></li>`)}</ul>`}
    ${!prompts.loading && !(prompts.error && !prompts.stale) && html`<${Table} label="Open questions" columns=${columns} rows=${prompts.rows} row_key=${(row) => row.id} selected=${may("operator") ? new Set(selected) : null} on_select=${may("operator") ? set_selected : null}
      empty="No question is open. Images that come with “push: ask” are asked about here; where auto-push decides (Settings), nobody is asked." />
    <${Pager} list=${prompts.list} noun="question" />`}
  </${Section}>
  ${answered.rows?.length > 0 && html`<${Section} title="Answered" id="answered"><ul class="plain">${answered.rows.map((one) => html`<li key=${one.id}><${Badge} state=${one.data?.answer === "push" ? "pushed" : "skipped"}>${one.data?.answer}</${Badge}> <${Name} reference=${one.data?.reference ?? one.subject} />
    <span class="quiet">${one.actor && html`by <${Text} value=${one.actor} limit=${64} />`} · <${Age} at=${one.time} /></span></li>`)}</ul></${Section}>`}`;
}

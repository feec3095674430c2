// The tab Doctor: every dependency in turn, what is wrong with it, and what to do.

import { offers, path_of, useGet } from "./net.js";
import { clock } from "./text.js";
import { Badge, html, Section, State, Text } from "./ui.js";

export function Doctor() {
  if (!offers("GET", "doctor")) return html`<${Dependencies} />`;
  return html`<${Findings} />`;
}

const ASKS = { redis: "Redis", registry: "The registry", engine: "The host's engine" };

// What every server answers: whether it can use what it stands on.
function Dependencies() {
  const found = useGet("readyz", { every: 10_000 });
  const all = Object.entries(found.data?.dependencies ?? {});
  return html`<${Section} title="Doctor" id="doctor" actions=${html`<button onClick=${found.reload}>Look again</button>`}><${State} found=${found} noun="What this server stands on" />
    ${found.data && html`<p class="headline" role="status"><strong>${found.data.status === "ok" ? "All answer." : "Something does not answer."}</strong> <span class="quiet">Looked at ${clock(found.at)}.</span></p>
    <ul class="findings">${all.map(([name, one]) => html`<li key=${name}><${Badge} state=${one.status === "ok" ? "ok" : "wrong"} /><div><strong>${ASKS[name] ?? name}</strong> <${Text} value=${one.detail ?? ""} limit=${600} /></div></li>`)}</ul>
    <p class="quiet">More, with advice: <code>cyroid-images doctor</code></p>`}</${Section}>`;
}

function Findings() {
  const found = useGet(path_of("doctor"), { every: 60_000, timed: true });
  const items = found.data?.items ?? [];
  return html`<${Section} title="Doctor" id="doctor" actions=${html`<button onClick=${found.reload}>Look again</button>`}><${State} found=${found} noun="What the doctor found" />
    ${found.data && html`<p class="headline" role="status"><strong>${found.data.well ? "All is well." : "Something is wrong."}</strong> <span class="quiet">Looked at ${clock(found.at)}.</span></p>
    <ul class="findings">${items.map((one) => html`<li key=${one.what}><${Badge} state=${one.state} /><div><strong><${Text} value=${one.what} limit=${80} /></strong> <${Text} value=${one.found} limit=${600} />
      ${one.advice && html`<small><${Text} value=${one.advice} limit=${600} /></small>`}</div></li>`)}</ul>`}</${Section}>`;
}

// The page: who is logged in, the tabs, and the questions that are open.

import { render } from "./vendor/preact.js";
import { useEffect, useState } from "./vendor/preact-hooks.js";
import { get, learn_offers, offers, path_of, remove, request, useCommand, when_signed_out } from "./net.js";
import { start_live, useLive } from "./live.js";
import { here, link, usePlace } from "./router.js";
import { Failure, html, Text } from "./ui.js";
import { Prompts, Toasts, usePrompts } from "./prompts.js";

// Of each tab its key, its title, and how its view is loaded: the one that is looked at first, the others after that.
const TABS = [
  ["registry", "Registry", async () => (await import("./registry.js")).Registry],
  ["prompts", "Prompts", async () => Prompts],
  ["deployments", "Deployments", async () => (await import("./deployments.js")).Deployments],
  ["events", "Events", async () => (await import("./events.js")).Events],
  ["ranges", "Ranges", async () => (await import("./ranges.js")).Ranges],
  ["settings", "Settings", async () => (await import("./settings.js")).Settings],
  ["doctor", "Doctor", async () => (await import("./doctor.js")).Doctor],
];
const ICON = new URL("icon.svg", import.meta.url).href;
const IDLE_MS = 1500;
const views = new Map();
const tab_of = (key) => TABS.find(([one]) => one === key) ?? TABS[0];
const load = async ([key, , loading]) => views.set(key, await loading());

// The view of a tab; null until it is there.
function useView(tab) {
  const [, draw] = useState(0);
  const [error, set_error] = useState(null);
  useEffect(() => {
    let gone = false;
    set_error(null);
    if (!views.has(tab[0])) load(tab).then(() => !gone && draw((count) => count + 1), () => !gone && set_error("This tab cannot be loaded: reload the page."));
    const rest = setTimeout(() => TABS.forEach((one) => views.has(one[0]) || load(one).catch(() => {})), IDLE_MS);
    return () => { gone = true; clearTimeout(rest); };
  }, [tab[0]]);
  return [views.get(tab[0]) ?? null, error];
}
const RANK = { viewer: 1, operator: 2, admin: 3 };
const THEMES = { "": "As the system", light: "Light", dark: "Dark" };

function use_theme() {
  const [theme, set] = useState(() => { try { return localStorage.getItem("cyroid-theme") ?? ""; } catch { return ""; } });
  useEffect(() => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    try { localStorage.setItem("cyroid-theme", theme); } catch { /* a private window keeps nothing */ }
  }, [theme]);
  return [theme, set];
}

function Login({ auth, on_login }) {
  const login = useCommand(async (token) => (await request("POST", path_of("session"), { body: { token } })).data);
  const submit = async (event) => {
    event.preventDefault();
    const form = event.currentTarget;
    const who = await login.run(new FormData(form).get("token"));
    form.reset();
    if (who) on_login(who);
  };
  return html`<main class="login"><form onSubmit=${submit}>
    <h1>CYROID images</h1>
    <label>${auth === "cyroid" ? "Your CYROID token" : "Token"}<input name="token" type="password" required autofocus autocomplete="current-password" maxlength="8192" /></label>
    <button class="primary" disabled=${login.busy}>Log in</button>
    <${Failure} error=${login.error} />
    <p class="quiet">${auth === "cyroid" ? "The token of your CYROID session." : html`An administrator makes tokens with <code>cyroid-images tokens create</code>.`} It is kept in a cookie that scripts cannot read.</p>
  </form></main>`;
}

const CONNECTION = { live: ["good", "live"], polling: ["warn", "asking every few seconds"], connecting: ["busy", "connecting"] };

function Header({ tab, session, prompts, theme, set_theme, on_logout }) {
  const live = useLive();
  const [tone, text] = CONNECTION[live.state] ?? CONNECTION.connecting;
  return html`<header class="top">
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to the content</a>
    <h1><img src=${ICON} alt="" width="26" height="26" />CYROID images</h1>
    <nav aria-label="Tabs"><ul>${TABS.map(([key, title]) => html`<li key=${key}><a href=${link(key)} aria-current=${key === tab ? "page" : undefined}>${title}
      ${key === "prompts" && prompts.length > 0 && html`<span class="count" aria-label=${`${prompts.length} open`}>${prompts.length}</span>`}</a></li>`)}</ul></nav>
    <div class="who"><span class=${`connection ${tone}`} role="status">${text}</span>
      <label class="theme"><span class="sr">Colours</span><select value=${theme} onChange=${(event) => set_theme(event.currentTarget.value)}>${Object.entries(THEMES).map(([key, title]) => html`<option key=${key} value=${key}>${title}</option>`)}</select></label>
      ${session.name && html`<span class="user"><${Text} value=${session.name} limit=${64} /> <small>${session.role}</small></span><button onClick=${on_logout}>Log out</button>`}</div>
  </header>`;
}

function Page({ session, on_logout }) {
  const place = usePlace();
  const [theme, set_theme] = use_theme();
  const prompts = usePrompts();
  const [tab, title] = tab_of(place.tab);
  const [View, problem] = useView(tab_of(place.tab));
  const may = (role) => (RANK[session.role] ?? 0) >= RANK[role];
  useEffect(() => { document.title = `${title} – CYROID images`; }, [title]);
  return html`<${Header} ...${{ tab, session, prompts: prompts.rows, theme, set_theme, on_logout }} />
    <main id="main" tabindex="-1">${View ? html`<${View} place=${place} may=${may} prompts=${prompts} />` : problem ? html`<${Failure} error=${problem} />` : html`<p class="quiet" role="status">Loading…</p>`}</main>
    <${Toasts} prompts=${prompts} may=${may} />`;
}

// What the first drawing needs is asked for at once, one beside the other.
const begun = { session: get(path_of("session")), offers: learn_offers(), view: load(tab_of(here().tab)) };
for (const one of Object.values(begun)) one.catch(() => {}); // whoever waits for it tells the error

function App() {
  const [session, set] = useState(null);
  const [error, set_error] = useState(null);
  const ask = async (first) => {
    try {
      set(await (first ?? get(path_of("session"))));
      set_error(null);
    } catch (problem) {
      set_error(problem);
      setTimeout(() => ask(), 2000);
    }
  };
  useEffect(() => { ask(begun.session); when_signed_out(() => set((now) => ({ ...now, role: null }))); }, []);
  const [ready, set_ready] = useState(false);
  useEffect(() => {
    if (!session?.role) return;
    begun.offers.catch(learn_offers).catch(() => {}).then(() => { set_ready(true); start_live(offers("GET", "events")); });
  }, [session?.role]);
  const logout = async () => { await remove(path_of("session")); location.reload(); };
  if (!session) return html`<p class="boot" role="status">${error ? html`The server cannot be used now: <${Text} value=${error.message} />. Trying again…` : "Loading…"}</p>`;
  if (!session.role) return html`<${Login} auth=${session.auth} on_login=${set} />`;
  if (!ready) return html`<p class="boot" role="status">Loading…</p>`;
  return html`<${Page} session=${session} on_logout=${logout} />`;
}

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);

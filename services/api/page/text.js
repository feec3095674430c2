// Text and numbers for people. Text may come from a range, so it can hold anything: what would be invisible, or would
// change the order of other text (control, bidi and zero-width characters), is named instead of written.

const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202f\u205f-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|\udb40[\udc00-\udfff]/g;
const PRINTABLE = /^[ -~]+$/; // what nearly every text is: nothing has to be looked for
export const LIMIT = 300;

const name_of = (found) => `U+${found.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

// Parts of a text: {text} to be shown as it is, {hidden} the name of a character, {more} characters left out.
export function parts(value, limit = LIMIT) {
  const whole = String(value ?? "");
  const text = whole.slice(0, limit);
  if (text && whole.length <= limit && PRINTABLE.test(text)) return [{ text }];
  const found = [];
  let from = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > from) found.push({ text: text.slice(from, match.index) });
    found.push({ hidden: name_of(match[0]) });
    from = match.index + match[0].length;
  }
  if (from < text.length) found.push({ text: text.slice(from) });
  if (whole.length > limit) found.push({ more: whole.length - limit });
  return found;
}

// The same as one string, for attributes.
export const plain = (value, limit = LIMIT) =>
  parts(value, limit).map((one) => one.text ?? (one.hidden ? `⟨${one.hidden}⟩` : `… ${one.more} more`)).join("");

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];
export function bytes(count) {
  if (typeof count !== "number" || !Number.isFinite(count)) return "–";
  let value = Math.abs(count), unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) { value /= 1000; unit += 1; }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${count < 0 ? "−" : ""}${value.toFixed(digits)} ${UNITS[unit]}`;
}

export const rate = (count) => (count > 0 ? `${bytes(count)}/s` : "");
// By hand, as below: the browser's own formatting takes tens of milliseconds when it is used first.
export const number = (count) => (typeof count === "number" ? String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, ",") : "–");
export const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
export const percent = (part, whole) => (whole > 0 ? Math.min(100, Math.floor((100 * part) / whole)) : 0);

export function duration(seconds) {
  if (typeof seconds !== "number" || !Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.round(whole / 60)} min`;
  if (whole < 172800) return `${Math.round(whole / 3600)} h`;
  return `${Math.round(whole / 86400)} days`;
}

export function age(moment, now = Date.now()) {
  const at = Date.parse(moment);
  if (Number.isNaN(at)) return "–";
  const seconds = (now - at) / 1000;
  return seconds < 2 ? "now" : `${duration(seconds)} ago`;
}

export function clock(moment) {
  const at = new Date(moment);
  if (Number.isNaN(at.getTime())) return "–";
  const two = (count) => String(count).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export const short_digest = (digest) => String(digest ?? "").replace(/^sha256:/, "").slice(0, 12);

// `docker.io/library/web:1` is `web:1` for people.
export const short_name = (reference) => String(reference ?? "").replace(/^docker\.io\/(library\/)?/, "");

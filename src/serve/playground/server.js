// What the pages share: asking the server, saying what went wrong, and the choice of a model.

import { $, count, element } from "./dom.js";

const NO_LIMIT = 1e9; // what the manifest of a model that reads everything says
const ALL = "\0all"; // no name of a folder

/** An answer that is an error, in the server's own sentence. */
class Problem extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** What the server has, once it has said so. */
export const state = { models: [], mostItems: 32 };

/** Ask by a path without a slash before it, so that a proxy may serve all this under another. */
export async function ask(path, options = {}) {
  // A header holds bytes: those of the key in UTF-8.
  const key = String.fromCharCode(...new TextEncoder().encode(sessionStorage.getItem("key") ?? ""));
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer. Is it still running?", 0);
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    const sentence = told.error?.message ?? told.error ?? `The server answered ${answer.status} and no reason.`;
    throw new Problem(sentence, answer.status);
  }
  return answer;
}

export function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

/** Say what went wrong, with a way to go on; `again` does the same once more. */
export function complain(error, again) {
  if (error.name === "AbortError") return;
  const known = error instanceof Problem;
  if (!known) console.error(error);
  if (error.status === 401) {
    $("key").hidden = false;
    $("key").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem("key", $("key-value").value.trim());
      $("key").hidden = true;
      calm();
      again();
    };
    $("key-value").focus();
  }
  const retry = element(
    "button",
    { type: "button", className: "quiet", onclick: again },
    "Try again",
  );
  const told = known ? error.message : `This page broke on the answer: ${error.message}`;
  const sentence = element("p", {}, told);
  $("problem").replaceChildren(element("div", { className: "problem" }, sentence, retry));
}

export function calm() {
  $("problem").replaceChildren();
}

/** Show that `place` waits for the server, while `work` does. */
export async function busy(place, status, sentence, work) {
  calm();
  place.setAttribute("aria-busy", "true");
  status.textContent = sentence;
  const own = Symbol("work");
  working.set(place, own);
  try {
    return await work();
  } finally {
    if (working.get(place) === own) {
      // and not the work that came in its place
      place.removeAttribute("aria-busy");
      status.textContent = "";
    }
  }
}

const working = new WeakMap();

export function milliseconds(time) {
  return time < 9950 ? `${Math.max(1, Math.round(time))} ms` : `${(time / 1000).toFixed(1)} s`;
}

export function limitsOf(model) {
  const limits = [
    model.max_length < NO_LIMIT && count(model.max_length, "token"),
    model.max_characters < NO_LIMIT && count(model.max_characters, "character"),
  ].filter(Boolean);
  return limits.join(" and ");
}

/** The page on which a model is tried: that of texts, of records, or of questions. */
function pageOf(model) {
  if (model.columns) return "records";
  return model.kind === "reader" ? "questions" : "texts";
}

/** The models that are tried on a page. */
export function modelsOf(page) {
  return state.models.filter((model) => pageOf(model) === page);
}

/** Fill a place with one radio button for each model, and call `changed` when another is taken. */
export function offer(place, models, changed, withAll = false) {
  const options = models.map((model) => [model.name, model.name]);
  if (withAll && options.length > 1) options.push([ALL, "Side by side"]);
  place.replaceChildren(
    ...options.map(([value, words], k) => {
      const input = element("input", {
        type: "radio",
        name: place.id,
        value,
        checked: k === 0,
        onchange: () => changed(value),
      });
      return element("label", {}, input, element("span", { dir: "auto" }, words));
    }),
  );
}

export function chosen(place) {
  const value = place.querySelector("input:checked").value;
  return value === ALL ? modelsOf("texts") : state.models.filter((model) => model.name === value);
}

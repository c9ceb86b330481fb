// The playground: three pages over the routes of the server that this one came from.

import { parse } from "./csv.js";
import { bar, count, element, percent } from "./dom.js";
import { blocks } from "./markdown.js";

const MOST_TEXTS = 200; // shown at once; more are a file
const MOST_LABELS = 6; // shown before the rest is folded
const MOST_WORDS = 10; // in the list of those that mattered
const MOST_ROWS = 8; // of a scored file, as a look at it
const MOST_CHARACTERS = 300; // of a text after the last word that mattered
const LEAST = 0.001; // the change of a probability that is worth telling
const FULL = 0.05; // the change that is drawn in full, unless there is a larger one
const NO_LIMIT = 1e9; // what the manifest of a model that reads everything says
const ALL = "\0all"; // no name of a folder

const $ = (id) => document.getElementById(id);

/** An answer that is an error, in the server's own sentence. */
class Problem extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** What the server has, once it has said so. */
const state = { models: [], mostItems: 32, cards: new Map() };

// ---------------------------------------------------------------- the server

/** Ask by a path without a slash before it, so that a proxy may serve all this under another. */
async function ask(path, options = {}) {
  const key = sessionStorage.getItem("key");
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
    const sentence = told.error ?? `The server answered ${answer.status} and no reason.`;
    throw new Problem(sentence, answer.status);
  }
  return answer;
}

function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

/** Scores of all texts by one model, with the rows of which only the start was read. */
async function predict(model, texts, signal) {
  const start = performance.now();
  const rows = [];
  const cut = new Set();
  for (let from = 0; from < texts.length; from += state.mostItems) {
    const inputs = texts.slice(from, from + state.mostItems).map((text) => [text]);
    const answer = await post("predict", { inputs, model: model.name, truncate: true }, signal);
    const truncated = answer.headers.get("X-Truncated");
    for (const row of truncated ? truncated.split(",") : []) cut.add(from + Number(row));
    rows.push(...(await answer.json()));
  }
  return { model, rows, cut, milliseconds: performance.now() - start };
}

// ---------------------------------------------------------------- what is said

/** Say what went wrong, with a way to go on; `again` does the same once more. */
function complain(error, again) {
  if (error.name === "AbortError") return;
  if (!(error instanceof Problem)) throw error;
  if (error.status === 401) {
    $("key").hidden = false;
    $("key").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem("key", $("key-value").value);
      $("key").hidden = true;
      calm();
      again();
    };
    $("key-value").focus();
  }
  const retry = element("button", { type: "button", className: "quiet", onclick: again }, "Try again");
  const sentence = element("p", {}, error.message);
  $("problem").replaceChildren(element("div", { className: "problem" }, sentence, retry));
}

function calm() {
  $("problem").replaceChildren();
}

/** Show that `place` waits for the server, while `work` does. */
async function busy(place, status, sentence, work) {
  calm();
  place.setAttribute("aria-busy", "true");
  status.textContent = sentence;
  const own = Symbol("work");
  working.set(place, own);
  try {
    return await work();
  } finally {
    if (working.get(place) === own) { // and not the work that came in its place
      place.removeAttribute("aria-busy");
      status.textContent = "";
    }
  }
}

const working = new WeakMap();

function milliseconds(time) {
  return time < 9950 ? `${Math.max(1, Math.round(time))} ms` : `${(time / 1000).toFixed(1)} s`;
}

function limitsOf(model) {
  const limits = [
    model.max_length < NO_LIMIT && count(model.max_length, "token"),
    model.max_characters < NO_LIMIT && count(model.max_characters, "character"),
  ].filter(Boolean);
  return limits.join(" and ");
}

// ---------------------------------------------------------------- the choice of a model

/** Fill a place with one radio button for each model, and call `changed` when another is taken. */
function offer(place, changed, withAll = false) {
  const options = state.models.map((model) => [model.name, model.name]);
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

function chosen(place) {
  const value = place.querySelector("input:checked").value;
  return value === ALL ? state.models : state.models.filter((model) => model.name === value);
}

// ---------------------------------------------------------------- texts

let asking = new AbortController(); // of the latest request, which replaces one before it

function textsOf() {
  const typed = $("text").value;
  const texts = $("lines").checked ? typed.split(/\r?\n/) : [typed];
  return texts.map((text) => text.trim()).filter(Boolean);
}

async function classify() {
  if (!state.models.length) return start();
  const texts = textsOf();
  if (!texts.length) {
    calm();
    $("status").textContent = "Write a text first.";
    $("text").focus();
    return;
  }
  if (texts.length > MOST_TEXTS) {
    $("status").textContent =
      `These are ${count(texts.length, "text")}: take at most ${MOST_TEXTS} here, or a file.`;
    return;
  }
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const models = chosen($("text-models"));
  try {
    const answers = await busy($("results"), $("status"), "Classifying…", async () => {
      const all = [];
      // One after the other: they share the server's cores, and would lengthen each other's time.
      for (const model of models) all.push(await predict(model, texts, signal));
      return all;
    });
    show(texts, answers);
  } catch (error) {
    complain(error, classify);
  }
}

function show(texts, answers) {
  const times = answers.map((one) => `${one.model.name} ${milliseconds(one.milliseconds)}`);
  const parts = [`${count(texts.length, "text")}; round trip: ${times.join(", ")}.`];
  if (answers.length > 1) {
    const agreed = texts.filter((_, row) => new Set(labelsOf(answers, row)).size === 1).length;
    parts.push(`The models agree on ${agreed} of ${texts.length}.`);
  }
  $("status").textContent = parts.join(" ");
  $("results").replaceChildren(
    element(
      "ol",
      { className: "answers" },
      ...texts.map((text, row) => answerOf(text, row, answers, texts.length > 1)),
    ),
  );
}

function labelsOf(answers, row) {
  return answers.map((one) => one.rows[row][0].label);
}

function answerOf(text, row, answers, numbered) {
  const differ = new Set(labelsOf(answers, row)).size > 1;
  const head = element(
    "div",
    { className: "answer-head" },
    element("h2", { className: numbered ? "place" : "unseen" }, `Text ${row + 1}`),
    differ && element("span", { className: "badge" }, "The models differ"),
  );
  const places = answers.map(() => element("div", { className: "explanation" }));
  const why = element(
    "button",
    { type: "button", className: "quiet", "aria-expanded": "false" },
    "Which words mattered?",
  );
  why.onclick = () => unfold(why, places, answers.map((one) => one.model), text);
  const several = answers.length > 1;
  return element(
    "li",
    { className: "panel answer" },
    head,
    element("p", { className: "said", dir: "auto" }, text),
    element("div", { className: "verdicts" }, ...answers.map((one) => verdictOf(row, one, several))),
    why,
    element("div", { className: "verdicts explanations" }, ...places),
  );
}

function verdictOf(row, answer, named) {
  const { model } = answer;
  const scores = answer.rows[row];
  return element(
    "div",
    { className: "verdict", role: "group", "aria-label": `${model.name}, text ${row + 1}` },
    named && element("h3", { className: "of-model" }, model.name),
    element(
      "p",
      { className: "label" },
      element("bdi", {}, scores[0].label),
      " ",
      element("span", { className: "sure" }, percent(scores[0].score)),
    ),
    bars(scores),
    answer.cut.has(row) &&
      element("p", { className: "cut" }, `Only the start was read: at most ${limitsOf(model)}.`),
  );
}

function bars(scores) {
  const rows = scores.map((one, k) =>
    element(
      "li",
      { className: k === 0 ? "best" : "" },
      element("bdi", { className: "bar-label" }, one.label),
      bar(one.score),
      element("span", { className: "number" }, percent(one.score)),
    ),
  );
  const list = (part) => element("ul", { className: "bars" }, ...part);
  if (rows.length <= MOST_LABELS + 1) return list(rows);
  const rest = rows.slice(MOST_LABELS);
  return element(
    "div",
    {},
    list(rows.slice(0, MOST_LABELS)),
    element("details", {}, element("summary", {}, `${rest.length} more labels`), list(rest)),
  );
}

// ---------------------------------------------------------------- which words mattered

async function unfold(button, places, models, text) {
  const folded = button.getAttribute("aria-expanded") === "false";
  button.setAttribute("aria-expanded", String(folded));
  for (const place of places) place.replaceChildren();
  if (!folded) return;
  try {
    for (const [k, model] of models.entries()) {
      const status = element("p", { role: "status", className: "hint" });
      places[k].replaceChildren(status);
      const found = await busy(places[k], status, "Leaving out each word…", async () => {
        const answer = await post("explain", { inputs: text, model: model.name });
        return answer.json();
      });
      if (button.getAttribute("aria-expanded") === "false") return; // folded meanwhile
      const name = models.length > 1 ? [element("h3", { className: "of-model" }, model.name)] : [];
      places[k].replaceChildren(...name, ...explanation(found, text, model));
    }
  } catch (error) {
    button.setAttribute("aria-expanded", "false");
    for (const place of places) place.replaceChildren();
    complain(error, () => unfold(button, places, models, text));
  }
}

function explanation(found, text, model) {
  const words = found.words.filter((word) => Math.abs(word.change) >= LEAST);
  const notes = [
    found.words_left > 0 &&
      `Only the first ${count(found.words.length, "word")} were left out in turn; ` +
        `${count(found.words_left, "more word")} were not.`,
    found.truncated && `The model read at most ${limitsOf(model)}.`,
  ].filter(Boolean);
  const told = notes.map((note) => element("p", { className: "cut" }, note));
  if (!words.length) {
    const few = `less than ${LEAST * 100} points`;
    const sentence = `No single word decides: whichever is left out, the probability changes by ${few}.`;
    return [element("p", { className: "hint" }, sentence), ...told];
  }
  const full = Math.max(FULL, ...words.map((word) => Math.abs(word.change)));
  const order = words.toSorted((a, b) => Math.abs(b.change) - Math.abs(a.change));
  const caption = element(
    "caption",
    {},
    "By how many points the probability of ",
    element("bdi", {}, found.label),
    `, ${percent(found.score)}, falls when the word is left out.`,
  );
  const head = ["Word", "Speaks", "Points"].map((name, k) =>
    element("th", { scope: "col", className: k === 2 ? "number" : "" }, name),
  );
  const table = element(
    "table",
    { className: "words" },
    caption,
    element("thead", {}, element("tr", {}, ...head, element("td", { "aria-hidden": "true" }))),
    element("tbody", {}, ...order.slice(0, MOST_WORDS).map((word) => wordRow(word, full))),
  );
  return [marked(words, text, full), table, ...told];
}

function wordRow(word, full) {
  const side = word.change < 0 ? "for" : "against";
  const points = (-word.change * 100).toFixed(1).replace("-", "−");
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, element("bdi", {}, word.word)),
    element("td", {}, side),
    element("td", { className: "number" }, points),
    element("td", { "aria-hidden": "true" }, bar(Math.abs(word.change) / full, side)),
  );
}

/** The text with its words marked, the stronger the more they matter. */
function marked(words, text, full) {
  // The server counts characters, JavaScript counts halves of those outside the basic plane.
  const characters = Array.from(text);
  const slice = (from, to) => characters.slice(from, to).join("");
  const made = element("p", { className: "marked", dir: "auto" });
  let at = 0;
  for (const { start, end, change } of words) {
    const side = change < 0 ? "for" : "against";
    const mark = element("mark", { className: side }, slice(start, end));
    mark.style.setProperty("--share", (Math.abs(change) / full).toFixed(3));
    made.append(slice(at, start), mark);
    at = end;
  }
  const rest = slice(at, at + MOST_CHARACTERS);
  made.append(rest, at + MOST_CHARACTERS < characters.length ? "…" : "");
  return made;
}

// ---------------------------------------------------------------- a file

let prefix = ""; // of the names of the new columns, so that none is there twice

async function look() {
  const file = $("csv").files[0];
  if (!file) return;
  const [header = []] = parse(await file.slice(0, 2 ** 16).text(), 1);
  const columns = header.map((name) => element("option", { value: name }, name));
  $("column").replaceChildren(...columns);
  $("column").disabled = !columns.length;
  const likely = header.find((name) => /^(text|content|message|body)$/i.test(name.trim()));
  if (likely !== undefined) $("column").value = likely;
  const taken = (start) => header.includes(`${start}label`) || header.includes(`${start}score`);
  prefix = "";
  for (let number = 1; taken(prefix); number += 1) {
    prefix = number === 1 ? "predicted_" : `predicted${number}_`;
  }
  $("csv-about").textContent = columns.length
    ? `${size(file.size)}, ${count(columns.length, "column")}. ` +
      `The columns ${prefix}label and ${prefix}score are added.`
    : "This file has no header.";
}

function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB"];
  const step = bytes ? Math.min(3, Math.floor(Math.log10(bytes) / 3)) : 0;
  return `${(bytes / 1000 ** step).toLocaleString("en", { maximumFractionDigits: 1 })} ${units[step]}`;
}

async function scoreFile() {
  if (!state.models.length) return start();
  const file = $("csv").files[0];
  if (!file) {
    $("file-status").textContent = "Choose a file first.";
    $("csv").focus();
    return;
  }
  const [model] = chosen($("file-models"));
  const query = new URLSearchParams({ model: model.name, text_column: $("column").value, prefix });
  const start = performance.now();
  try {
    const [content, cut] = await busy($("scored"), $("file-status"), "Scoring…", async () => {
      const headers = { "Content-Type": "text/csv" };
      const answer = await ask(`score?${query}`, { method: "POST", headers, body: file });
      return [await answer.blob(), Number(answer.headers.get("X-Truncated-Rows"))];
    });
    const rows = parse(await content.text());
    const time = milliseconds(performance.now() - start);
    $("file-status").textContent = `${count(rows.length - 1, "row")} scored in ${time}.`;
    showScored(rows, cut, content, file.name, model);
  } catch (error) {
    $("scored").replaceChildren();
    complain(error, scoreFile);
  }
}

let link = ""; // to the file in the browser's memory, which is freed for the next one

function showScored(rows, cut, content, name, model) {
  URL.revokeObjectURL(link);
  link = URL.createObjectURL(content);
  const [header, ...body] = rows;
  const download = `${name.replace(/\.csv$/i, "")}-scored.csv`;
  const counts = new Map();
  for (const row of body) counts.set(row.at(-2), (counts.get(row.at(-2)) ?? 0) + 1);
  const most = [...counts].sort((a, b) => b[1] - a[1]);
  const short = (field) => (field.length > 80 ? `${field.slice(0, 80)}…` : field);
  const cells = (row, tag) =>
    row.map((field) => {
      const className = field.length > 24 ? "long" : "";
      return element(tag, { dir: "auto", className }, short(field));
    });
  const rounded = (row) => row.with(-1, Number(row.at(-1)).toFixed(4));
  const first = body.slice(0, MOST_ROWS).map(rounded);
  $("scored").replaceChildren(
    element(
      "div",
      { className: "panel" },
      element(
        "div",
        { className: "scored-head" },
        element("h2", {}, "Labels that were given"),
        element("a", { className: "primary", href: link, download }, `Download ${download}`),
      ),
      cut > 0 &&
        element(
          "p",
          { className: "cut" },
          `Of ${count(cut, "row")} only the start was read: at most ${limitsOf(model)}.`,
        ),
      element(
        "ul",
        { className: "bars" },
        ...most.map(([label, number]) =>
          element(
            "li",
            { className: "best" },
            element("bdi", { className: "bar-label" }, label),
            bar(number / body.length),
            element("span", { className: "number" }, number.toLocaleString("en")),
          ),
        ),
      ),
      element("h2", {}, first.length < body.length ? `The first ${first.length} rows` : "The rows"),
      element(
        "div",
        { className: "wide", tabIndex: 0, role: "group", "aria-label": "Scored rows" },
        element(
          "table",
          {},
          element("thead", {}, element("tr", {}, ...cells(header, "th"))),
          element("tbody", {}, ...first.map((row) => element("tr", {}, ...cells(row, "td")))),
        ),
      ),
    ),
  );
}

// ---------------------------------------------------------------- a model

async function showCard(name, section) {
  const input = [...$("card-models").querySelectorAll("input")].find((one) => one.value === name);
  if (!input) {
    $("card").replaceChildren(element("p", { className: "empty" }, "There is no such model here."));
    return;
  }
  input.checked = true;
  if ($("card").dataset.model !== name) {
    try {
      const card = await (await ask(`models/${encodeURIComponent(name)}/card`)).json();
      calm();
      $("card").replaceChildren(...cardOf(card));
      $("card").dataset.model = name;
    } catch (error) {
      complain(error, () => showCard(name, section));
      return;
    }
  }
  const heading = section && $(`card-${section}`);
  if (heading) {
    heading.scrollIntoView();
    heading.focus({ preventScroll: true });
  }
}

function cardOf(card) {
  const results = [card.front_matter?.["model-index"] ?? []].flat().flatMap((one) => one.results ?? []);
  const figures = results.flatMap((one) => one.metrics ?? []);
  const page = blocks(card.page);
  const title = page.find((block) => block.tagName === "H1");
  $("model-title").replaceChildren(...(title ? title.childNodes : [card.name]));
  const parts = [];
  for (const block of page.filter((one) => one !== title)) {
    if (block.tagName === "H2" || !parts.length) parts.push([]);
    parts.at(-1).push(block);
  }
  const titled = parts.filter(([first]) => first.tagName === "H2");
  titled.forEach(([first]) => {
    first.id = `card-${slug(first.textContent)}`;
    first.tabIndex = -1;
  });
  const body = element(
    "div",
    { className: "card-body" },
    figures.length > 0 && tiles(figures, results[0]?.dataset),
    facts(card),
    !card.page.trim() &&
      element("p", { className: "panel hint" }, "There is no model card in the folder of this model."),
    ...parts.map((part) => element("section", { className: "panel prose" }, ...part)),
  );
  if (!titled.length) return [body];
  const links = titled.map(([first]) => {
    const href = `#/model/${encodeURIComponent(card.name)}/${slug(first.textContent)}`;
    return element("li", {}, element("a", { href }, first.textContent));
  });
  const contents = element("nav", { className: "contents", "aria-label": "Card" }, element("ul", {}, ...links));
  return [element("div", { className: "card-columns" }, contents, body)];
}

function slug(words) {
  return words.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-");
}

function tiles(figures, dataset) {
  const whole = (figure) => /accuracy|f1|precision|recall/.test(figure.type);
  const made = figures
    .filter((figure) => typeof figure.value === "number")
    .map((figure) =>
      element(
        "div",
        { className: "tile" },
        element("dt", {}, figure.name ?? figure.type),
        element(
          "dd",
          {},
          whole(figure) ? percent(figure.value) : figure.value.toFixed(4),
          whole(figure) && bar(figure.value),
        ),
      ),
    );
  return element(
    "section",
    { "aria-label": "Figures" },
    element("dl", { className: "tiles" }, ...made),
    dataset &&
      element(
        "p",
        { className: "hint" },
        `Measured on the ${dataset.split ?? ""} texts of `,
        element("code", {}, dataset.name ?? "the data"),
      ),
  );
}

function facts(card) {
  const rows = [
    ["Folder", element("code", {}, card.name)],
    ["Kind", element("code", {}, card.kind)],
    ["Labels", element("span", { className: "chips" }, ...card.labels.map((label) => element("bdi", {}, label)))],
    ["Reads", limitsOf(card) ? `at most ${limitsOf(card)}` : "the whole text"],
    ["sha256 of model.onnx", element("code", { className: "hash" }, card.sha256)],
  ];
  return element(
    "dl",
    { className: "panel facts" },
    ...rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );
}

// ---------------------------------------------------------------- pages

/** A part of the address as it was before it went there; one that somebody garbled as it is. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Show the page that the address names, as #/texts, #/file and #/model/NAME/SECTION do. */
function route(event) {
  // The link that skips to the content and the like are the browser's own.
  if (location.hash && !location.hash.startsWith("#/")) return;
  const [, page = "texts", name, section] = location.hash.split("/").map(decoded);
  const known = $(page)?.classList.contains("page") ? page : "texts";
  for (const one of document.querySelectorAll(".page")) one.hidden = one.id !== known;
  for (const one of document.querySelectorAll("nav[aria-label=Pages] a")) {
    if (one.hash === `#/${known}`) one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
  }
  document.title = `${$(`${known}-title`).dataset.name} · Pedigree`;
  if (known === "model" && state.models.length) showCard(name || state.models[0].name, section);
  if (event && state.models.length) calm(); // what went wrong on another page
  if (event && !section) {
    $(`${known}-title`).focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

async function start() {
  try {
    const [models, info] = await Promise.all(
      ["models", "info"].map(async (path) => (await ask(path)).json()),
    );
    state.models = models;
    state.mostItems = info.max_client_batch_size;
    calm();
  } catch (error) {
    complain(error, start);
    return;
  }
  offer($("text-models"), () => $("results").querySelector(".answers") && classify(), true);
  offer($("file-models"), () => {});
  offer($("card-models"), (name) => {
    location.hash = `#/model/${encodeURIComponent(name)}`;
  });
  const labels = [...new Set(state.models.flatMap((model) => model.labels))];
  $("labels-known").replaceChildren(
    `The models here know ${count(labels.length, "label")}:`,
    element("span", { className: "chips" }, ...labels.slice(0, 30).map((label) => element("bdi", {}, label))),
  );
  route();
}

function isDark() {
  const theme = document.documentElement.dataset.theme;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function listen() {
  const theme = $("theme");
  const tell = () => theme.setAttribute("aria-pressed", String(isDark()));
  theme.onclick = () => {
    const name = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = name;
    localStorage.setItem("theme", name);
    tell();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", tell);
  tell();

  $("ask").onsubmit = (event) => {
    event.preventDefault();
    classify();
  };
  $("text").onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) classify();
  };
  $("score").onsubmit = (event) => {
    event.preventDefault();
    scoreFile();
  };
  $("csv").onchange = look;
  const drop = $("drop");
  drop.ondragover = (event) => {
    event.preventDefault();
    drop.classList.add("over");
  };
  drop.ondragleave = () => drop.classList.remove("over");
  drop.ondrop = (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    $("csv").files = event.dataTransfer.files;
    look();
  };
  for (const page of document.querySelectorAll(".page h1")) page.dataset.name = page.textContent;
  addEventListener("hashchange", route);
}

listen();
route();
start();

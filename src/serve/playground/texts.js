// The page on which texts are classified, and the words that mattered are shown.

import { $, bar, count, element, percent } from "./dom.js";
import { busy, calm, chosen, complain, limitsOf, milliseconds, post, state } from "./server.js";

const MOST_TEXTS = 200; // shown at once; more are a file
const MOST_LABELS = 6; // shown before the rest is folded
const MOST_WORDS = 10; // in the list of those that mattered
const MOST_CHARACTERS = 300; // of a text after the last word that mattered
const LEAST = 0.001; // the change of a probability that is worth telling
const FULL = 0.05; // the change that is drawn in full, unless there is a larger one

/** The rows that a header of an answer names, as "0,3". */
function rowsIn(answer, header) {
  const named = answer.headers.get(header);
  return named ? named.split(",").map(Number) : [];
}

/** Scores of all texts by one model, and the rows of which it read only the start or was unsure. */
async function predict(model, texts, signal) {
  const start = performance.now();
  const rows = [];
  const cut = new Set();
  const unsure = new Set();
  for (let from = 0; from < texts.length; from += state.mostItems) {
    const inputs = texts.slice(from, from + state.mostItems).map((text) => [text]);
    const answer = await post("predict", { inputs, model: model.name, truncate: true }, signal);
    for (const row of rowsIn(answer, "X-Truncated")) cut.add(from + row);
    for (const row of rowsIn(answer, "X-No-Answer")) unsure.add(from + row);
    rows.push(...(await answer.json()));
  }
  return { model, rows, cut, unsure, milliseconds: performance.now() - start };
}

let asking = new AbortController(); // of the latest request, which replaces one before it

function textsOf() {
  const typed = $("text").value;
  const texts = $("lines").checked ? typed.split(/\r?\n/) : [typed];
  return texts.map((text) => text.trim()).filter(Boolean);
}

export async function classify() {
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

/** What the models say of a text: null is no answer, which two of them may agree on. */
function labelsOf(answers, row) {
  return answers.map((one) => (one.unsure.has(row) ? null : one.rows[row][0].label));
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
  why.onclick = () =>
    unfold(
      why,
      places,
      answers.map((one) => one.model),
      text,
    );
  const several = answers.length > 1;
  return element(
    "li",
    { className: "panel answer" },
    head,
    element("p", { className: "said", dir: "auto" }, text),
    element(
      "div",
      { className: "verdicts" },
      ...answers.map((one) => verdictOf(row, one, several)),
    ),
    why,
    element("div", { className: "verdicts explanations" }, ...places),
  );
}

function verdictOf(row, answer, named) {
  const { model } = answer;
  const scores = answer.rows[row];
  const sure = !answer.unsure.has(row);
  const best = [
    element("bdi", {}, scores[0].label),
    " ",
    element("span", { className: "sure" }, percent(scores[0].score)),
  ];
  return element(
    "div",
    { className: "verdict", role: "group", "aria-label": `${model.name}, text ${row + 1}` },
    named && element("h3", { className: "of-model" }, model.name),
    element("p", { className: "label" }, sure ? best : "No answer"),
    !sure && element("p", { className: "guess" }, "best guess: ", best),
    bars(scores, sure),
    answer.cut.has(row) &&
      element("p", { className: "cut" }, `Only the start was read: at most ${limitsOf(model)}.`),
  );
}

/** The labels with their scores, of which the first is the answer if it is sure. */
export function bars(scores, sure) {
  const rows = scores.map((one, k) =>
    element(
      "li",
      { className: sure && k === 0 ? "best" : "" },
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
    element("bdi", {}, found.label ?? found.guess),
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

// The page on which a record of a table is classified, and what pushed it is shown.

import { $, bar, element, percent } from "./dom.js";
import { busy, chosen, complain, milliseconds, post } from "./server.js";
import { bars } from "./texts.js";

const LEAST = 0.0005; // the change of a probability that is worth telling
const MOST_COLUMNS = 12; // in the list of those that mattered
const SHOWN = 60; // characters of a value

/** Make a form of the columns that the chosen model reads, with their usual values. */
export function offerFields() {
  const [model] = chosen($("record-models"));
  $("fields").replaceChildren(...model.columns.map(field));
  $("decision").replaceChildren();
  $("record-status").textContent = "";
  $("importance").replaceChildren(...importance(model));
}

/** What the model goes by, over a sample of its test rows: a bar a feature, the largest first. */
function importance(model) {
  const told = (model.importance ?? []).filter((one) => one.importance > 0);
  if (!told.length) return [];
  const full = told[0].importance;
  const rows = told.slice(0, MOST_COLUMNS).map((one) =>
    element(
      "li",
      {},
      element("bdi", { className: "bar-label" }, one.feature),
      bar(one.importance / full),
      element("span", { className: "number" }, `${one.importance.toFixed(3)} ± ${one.spread.toFixed(3)}`),
    ),
  );
  const more = told.length - rows.length;
  const rest = `Of ${told.length} features that matter, the first ${rows.length}.`;
  return [
    element("h2", {}, "What the model goes by"),
    element(
      "p",
      { className: "hint" },
      "By how much average precision on a sample of the test rows falls when the values of a ",
      `column are shuffled, and the spread over repeats. ${more > 0 ? rest : ""}`,
    ),
    element("ul", { className: "bars measured" }, ...rows),
  ];
}

function field(column, place) {
  const id = `field-${place}`;
  const usual = column.usual === null ? "" : String(column.usual);
  let input;
  if (column.kind === "boolean") {
    const options = [
      ["true", "yes"],
      ["false", "no"],
      ["", "not known"],
    ];
    input = element(
      "select",
      { id },
      ...options.map(([value, words]) => element("option", { value }, words)),
    );
    input.value = usual;
  } else {
    const placeholder = { number: "not known", date: "2024-01-31T12:00" }[column.kind] ?? "";
    const inputMode = column.kind === "number" ? "decimal" : "text";
    input = element("input", { id, type: "text", value: usual, inputMode, placeholder });
    input.autocomplete = "off";
    input.spellcheck = false;
  }
  const range =
    column.minimum === undefined || column.minimum === null
      ? column.kind
      : `${short(column.minimum)} to ${short(column.maximum)}`;
  input.setAttribute("aria-describedby", `${id}-about`);
  return element(
    "div",
    { className: "field" },
    element("label", { htmlFor: id, dir: "auto" }, column.name),
    input,
    element("p", { id: `${id}-about`, className: "hint" }, range),
  );
}

function short(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value);
}

/** The value of a field, as JSON has it; what is no number goes as it is, for the server to tell. */
function valueOf(column, place) {
  const typed = $(`field-${place}`).value.trim();
  if (!typed) return null;
  if (column.kind === "boolean") return typed === "true";
  return column.kind === "number" && Number.isFinite(Number(typed)) ? Number(typed) : typed;
}

let asking = new AbortController(); // of the latest request, which replaces one before it

export async function decide() {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const [model] = chosen($("record-models"));
  const record = Object.fromEntries(
    model.columns.map((column, place) => [column.name, valueOf(column, place)]),
  );
  const start = performance.now();
  try {
    const found = await busy($("decision"), $("record-status"), "Classifying…", async () => {
      const body = { records: [record], model: model.name, explain: true };
      const [answer] = await (await post("predict", body, signal)).json();
      return answer;
    });
    $("record-status").textContent = `Round trip: ${milliseconds(performance.now() - start)}.`;
    $("decision").replaceChildren(verdict(found, model));
  } catch (error) {
    complain(error, decide);
  }
}

function verdict(found, model) {
  const told = model.positive || found.label;
  const scores = Object.entries(found.probabilities)
    .map(([label, score]) => ({ label, score }))
    .toSorted((a, b) => (b.label === found.label) - (a.label === found.label) || b.score - a.score);
  const rule = model.positive && [
    element("bdi", {}, model.positive),
    ` is decided for from a probability of ${percent(Math.min(1, model.threshold))} on.`,
  ];
  return element(
    "div",
    { className: "panel", role: "group", "aria-label": model.name },
    element(
      "p",
      { className: "label" },
      element("bdi", {}, found.label),
      " ",
      element("span", { className: "sure" }, percent(found.probabilities[found.label])),
    ),
    bars(scores, true),
    rule && element("p", { className: "hint" }, ...rule),
    ...explanation(found, told),
  );
}

function explanation(found, told) {
  const changes = found.changes.filter((one) => Math.abs(one.change) >= LEAST);
  const left =
    found.columns_left > 0
      ? [element("p", { className: "cut" }, `${found.columns_left} further columns were not tried.`)]
      : [];
  if (!changes.length) {
    const sentence = "No single column decides: with its usual value the probability is the same.";
    return [element("p", { className: "hint" }, sentence), ...left];
  }
  const full = Math.max(...changes.map((one) => Math.abs(one.change)));
  const caption = element(
    "caption",
    {},
    "By how many points the probability of ",
    element("bdi", {}, told),
    " is higher than with the usual value in a column.",
  );
  const head = ["Column", "Value", "Usual", "Points"].map((name, k) =>
    element("th", { scope: "col", className: k === 3 ? "number" : "" }, name),
  );
  const table = element(
    "table",
    { className: "words" },
    caption,
    element("thead", {}, element("tr", {}, ...head, element("td", { "aria-hidden": "true" }))),
    element("tbody", {}, ...changes.slice(0, MOST_COLUMNS).map((one) => row(one, full))),
  );
  const named = { className: "wide", tabIndex: 0, role: "group", "aria-label": "What pushed it" };
  return [element("div", named, table), ...left];
}

function row(one, full) {
  const points = (one.change * 100).toFixed(1).replace("-", "−");
  const shown = (value) => (value === null ? "not known" : short(value).slice(0, SHOWN));
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, element("bdi", {}, one.column)),
    element("td", { dir: "auto" }, shown(one.value)),
    element("td", { dir: "auto" }, shown(one.usual)),
    element("td", { className: "number" }, points),
    element(
      "td",
      { "aria-hidden": "true" },
      bar(Math.abs(one.change) / full, one.change > 0 ? "for" : "against"),
    ),
  );
}

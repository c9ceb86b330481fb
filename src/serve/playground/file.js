// The page on which a CSV file is scored.

import { parse } from "./csv.js";
import { $, bar, count, element } from "./dom.js";
import { ask, busy, chosen, complain, limitsOf, milliseconds } from "./server.js";

const ROWS = 20; // of a chosen file, header included, that its texts are looked for in
const MOST_ROWS = 8; // of a scored file, as a look at it

const LIST = new Intl.ListFormat("en-GB");

let header = []; // of the chosen file
let prefix = ""; // of the names of the new columns, so that none is there twice

let looked = Promise.resolve(); // when the columns of the file are known

/** Offer the columns of the file that was chosen. */
export function look() {
  const file = $("csv").files[0];
  if (file) looked = offerColumns(file);
}

async function offerColumns(file) {
  const [first = [], ...rows] = parse(await file.slice(0, 2 ** 16).text(), ROWS);
  header = first;
  const columns = header.map((name) => element("option", { value: name }, name));
  $("column").replaceChildren(...columns);
  $("column").disabled = !columns.length;
  // Texts have a usual name, or are longer than all else.
  const length = (k) => rows.reduce((sum, row) => sum + (row[k] ?? "").length, 0);
  const longest = header.map((_, k) => k).sort((a, b) => length(b) - length(a))[0];
  const likely = header.find((name) => /^(text|content|message|body)$/i.test(name.trim()));
  if (columns.length) $("column").value = likely ?? header[longest];
  tellColumns();
}

/** Say which columns the chosen model adds to the chosen file, under names that it does not have. */
export function tellColumns() {
  const file = $("csv").files[0];
  if (!$("file-models").querySelector("input")) return;
  const [model] = chosen($("file-models"));
  $("column").parentElement.hidden = Boolean(model.columns); // a model of tables reads its own
  if (!file) return;
  const ofTexts = model.min_score > 0 ? ["label", "guess", "score"] : ["label", "score"];
  const fields = model.columns ? ["label", "probability"] : ofTexts;
  const taken = (start) => fields.some((name) => header.includes(start + name));
  prefix = "";
  for (let number = 1; taken(prefix); number += 1) {
    prefix = number === 1 ? "predicted_" : `predicted${number}_`;
  }
  const added = LIST.format(fields.map((name) => prefix + name));
  $("csv-about").textContent = header.length
    ? `${size(file.size)}, ${count(header.length, "column")}. The columns ${added} are added.`
    : "This file has no header.";
}

function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB"];
  const step = bytes ? Math.min(3, Math.floor(Math.log10(bytes) / 3)) : 0;
  return `${(bytes / 1000 ** step).toLocaleString("en", { maximumFractionDigits: 1 })} ${units[step]}`;
}

let asking = new AbortController(); // of the latest file, which replaces one before it

export async function scoreFile() {
  const file = $("csv").files[0];
  if (!file) {
    $("file-status").textContent = "Choose a file first.";
    $("csv").focus();
    return;
  }
  if (!$("file-models").querySelector("input")) {
    $("file-status").textContent = "This server has no model of texts or tables.";
    return;
  }
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  await looked;
  const [model] = chosen($("file-models"));
  const label = `${prefix}label`; // another file may be chosen meanwhile
  const query = new URLSearchParams({ model: model.name, text_column: $("column").value, prefix });
  const start = performance.now();
  try {
    const [content, cut] = await busy($("scored"), $("file-status"), "Scoring…", async () => {
      const headers = { "Content-Type": "text/csv" };
      const answer = await ask(`score?${query}`, { method: "POST", headers, body: file, signal });
      return [await answer.blob(), Number(answer.headers.get("X-Truncated-Rows"))];
    });
    const rows = parse(await content.text());
    if (signal.aborted) return;
    const time = milliseconds(performance.now() - start);
    $("file-status").textContent = `${count(rows.length - 1, "row")} scored in ${time}.`;
    showScored(rows, label, cut, content, file.name, model);
  } catch (error) {
    if (signal.aborted) return; // what is there is of another file
    $("scored").replaceChildren();
    complain(error, scoreFile);
  }
}

let link = ""; // to the file in the browser's memory, which is freed for the next one

function showScored(rows, label, cut, content, name, model) {
  URL.revokeObjectURL(link);
  link = URL.createObjectURL(content);
  const [names, ...body] = rows;
  const download = `${name.replace(/\.csv$/i, "")}-scored.csv`;
  const place = names.indexOf(label);
  const scored = body.filter((row) => row.at(-1)); // a row without text has no score either
  const labels = scored.map((row) => row[place]).filter(Boolean);
  const first = body.slice(0, MOST_ROWS);
  const why = model.columns ? "with a value that can't be read" : "without text";
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
      scored.length < body.length &&
        element("p", {}, `${count(body.length - scored.length, "row")} ${why} got no label.`),
      tally(labels, scored.length),
      element("h2", {}, first.length < body.length ? `The first ${first.length} rows` : "The rows"),
      element(
        "div",
        { className: "wide", tabIndex: 0, role: "group", "aria-label": "Scored rows" },
        element(
          "table",
          {},
          element("thead", {}, element("tr", {}, ...cells(names, "th"))),
          element("tbody", {}, ...first.map((row) => scoredRow(row, place))),
        ),
      ),
    ),
  );
}

/** How many rows got each label, the most frequent first, and how many of them got none. */
function tally(labels, rows) {
  const counts = new Map();
  for (const label of labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  const line = (name, number, className) =>
    element(
      "li",
      { className },
      element("bdi", { className: "bar-label" }, name),
      bar(number / rows),
      element("span", { className: "number" }, number.toLocaleString("en")),
    );
  return element(
    "ul",
    { className: "bars" },
    ...[...counts].sort((a, b) => b[1] - a[1]).map(([name, number]) => line(name, number, "best")),
    labels.length < rows && line("No answer", rows - labels.length, "none"),
  );
}

function cells(row, tag) {
  const short = (field) => (field.length > 80 ? `${field.slice(0, 80)}…` : field);
  return row.map((field) => {
    const className = field.length > 24 ? "long" : "";
    return element(tag, { dir: "auto", className }, short(field));
  });
}

/** A row of the answer, its score rounded; `place` is where its label stands. */
function scoredRow(row, place) {
  const score = row.at(-1);
  const made = cells(row.with(-1, score && Number(score).toFixed(4)), "td");
  if (score && !row[place]) made[place].append(element("span", { className: "hint" }, "No answer"));
  return element("tr", {}, ...made);
}

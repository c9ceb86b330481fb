// The page on which a CSV file is scored.

import { parse } from "./csv.js";
import { $, bar, count, element } from "./dom.js";
import { ask, busy, chosen, complain, limitsOf, milliseconds } from "./server.js";

const ROWS = 20; // of a chosen file, header included, that its texts are looked for in
const MOST_ROWS = 8; // of a scored file, as a look at it

let prefix = ""; // of the names of the new columns, so that none is there twice

let looked = Promise.resolve(); // when the columns of the file are known

/** Offer the columns of the file that was chosen. */
export function look() {
  const file = $("csv").files[0];
  if (file) looked = offerColumns(file);
}

async function offerColumns(file) {
  const [header = [], ...rows] = parse(await file.slice(0, 2 ** 16).text(), ROWS);
  const columns = header.map((name) => element("option", { value: name }, name));
  $("column").replaceChildren(...columns);
  $("column").disabled = !columns.length;
  // Texts have a usual name, or are longer than all else.
  const length = (k) => rows.reduce((sum, row) => sum + (row[k] ?? "").length, 0);
  const longest = header.map((_, k) => k).sort((a, b) => length(b) - length(a))[0];
  const likely = header.find((name) => /^(text|content|message|body)$/i.test(name.trim()));
  if (columns.length) $("column").value = likely ?? header[longest];
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

let asking = new AbortController(); // of the latest file, which replaces one before it

export async function scoreFile() {
  const file = $("csv").files[0];
  if (!file) {
    $("file-status").textContent = "Choose a file first.";
    $("csv").focus();
    return;
  }
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  await looked;
  const [model] = chosen($("file-models"));
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
    showScored(rows, cut, content, file.name, model);
  } catch (error) {
    if (signal.aborted) return; // what is there is of another file
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
  const labels = body.map((row) => row.at(-2)).filter(Boolean); // a row without text has none
  for (const label of labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  const most = [...counts].sort((a, b) => b[1] - a[1]);
  const short = (field) => (field.length > 80 ? `${field.slice(0, 80)}…` : field);
  const cells = (row, tag) =>
    row.map((field) => {
      const className = field.length > 24 ? "long" : "";
      return element(tag, { dir: "auto", className }, short(field));
    });
  const rounded = (row) => row.with(-1, row.at(-1) && Number(row.at(-1)).toFixed(4));
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
      labels.length < body.length &&
        element("p", {}, `${count(body.length - labels.length, "row")} without text got no label.`),
      element(
        "ul",
        { className: "bars" },
        ...most.map(([label, number]) =>
          element(
            "li",
            { className: "best" },
            element("bdi", { className: "bar-label" }, label),
            bar(number / labels.length),
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

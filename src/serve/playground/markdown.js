// The Markdown that model cards are written in, as elements: headings, paragraphs, lists, tables,
// code. What else there may be stays the text that it is.

import { element } from "./dom.js";

const NUMBER = /^[+-]?[\d.,]+$/;
// Characters of a paragraph with markup: what looks for its ends takes the square of them.
const LONGEST = 10_000;
const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\[([^\]]+)\]\(([^)\s]+)\)/g;

/**
 * The blocks of a page.
 * @param {string} page
 * @returns {HTMLElement[]}
 */
export function blocks(page) {
  const lines = page.replaceAll("\r\n", "\n").split("\n");
  const made = [];
  let at = 0;
  /** The lines from here on for which `wanted` holds. */
  const take = (wanted) => {
    const start = at;
    while (at < lines.length && wanted(lines[at])) at += 1;
    return lines.slice(start, at);
  };
  while (at < lines.length) {
    const line = lines[at];
    const heading = /^(#{1,6})\s+(.*)$/.exec(line);
    if (!line.trim()) {
      at += 1;
    } else if (heading) {
      at += 1;
      made.push(element(`h${heading[1].length}`, {}, ...inline(heading[2])));
    } else if (line.startsWith("```")) {
      at += 1;
      const code = take((one) => !one.startsWith("```"));
      at += 1;
      made.push(region("Code", "code", element("pre", {}, element("code", {}, code.join("\n")))));
    } else if (isTable(line, lines[at + 1])) {
      made.push(table(take((one) => one.startsWith("|"))));
    } else if (isItem(line)) {
      const items = take((one) => isItem(one) || /^\s+\S/.test(one));
      made.push(list(items));
    } else {
      // At least this line, or a lone sign of a block would be waited for without end.
      at += 1;
      const rest = take((one) => one.trim() && !/^(#{1,6}\s|```|\|)/.test(one) && !isItem(one));
      made.push(element("p", { dir: "auto" }, ...inline([line, ...rest].join(" "))));
    }
  }
  return made;
}

function isTable(line, next) {
  return line.startsWith("|") && /^\|[\s:|-]+\|\s*$/.test(next ?? "");
}

function isItem(line) {
  return /^([-*]|\d+\.)\s/.test(line);
}

function list(lines) {
  const items = [];
  for (const line of lines) {
    if (isItem(line)) items.push(line.replace(/^\S+\s+/, ""));
    else items[items.length - 1] += ` ${line.trim()}`;
  }
  const tag = /^\d/.test(lines[0]) ? "ol" : "ul";
  return element(tag, {}, ...items.map((item) => element("li", { dir: "auto" }, ...inline(item))));
}

function table(lines) {
  const [head, , ...rows] = lines.map(cells);
  const named = head.some(Boolean);
  const numbers = head.map((_, k) => k > 0 && rows.every((row) => !row[k] || NUMBER.test(row[k])));
  const cell = (text, k, tag, scope) => {
    const made = element(tag, { className: numbers[k] ? "number" : "" }, ...inline(text));
    if (scope) made.scope = scope;
    return made;
  };
  const header = head.map((text, k) => (text ? cell(text, k, "th", "col") : cell(text, k, "td")));
  const body = rows.map((row) =>
    row.map((text, k) => (k ? cell(text, k, "td") : cell(text, k, "th", "row"))),
  );
  return region(
    named ? `Table by ${head[0] || head[1]}` : "Table",
    "table",
    element(
      "table",
      {},
      ...(named ? [element("thead", {}, element("tr", {}, ...header))] : []),
      element("tbody", {}, ...body.map((row) => element("tr", {}, ...row))),
    ),
  );
}

function cells(line) {
  const row = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return row.split(/(?<!\\)\|/).map((text) => text.trim().replaceAll("\\|", "|"));
}

/** What may be wider than the page is scrolled in a region of its own, by keys too. */
function region(name, kind, child) {
  const properties = { className: `wide ${kind}`, tabIndex: 0, role: "group", "aria-label": name };
  return element("div", properties, child);
}

function inline(text) {
  if (text.length > LONGEST) return [text];
  const made = [];
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    made.push(text.slice(from, match.index));
    from = match.index + match[0].length;
    const [whole, code, bold, words, target] = match;
    if (code !== undefined) made.push(element("code", {}, code));
    else if (bold !== undefined) made.push(element("strong", {}, bold));
    // A card may come from anywhere: only links of the web, not javascript: and the like.
    else if (/^https?:\/\//i.test(target)) {
      made.push(element("a", { href: target, rel: "noreferrer" }, words));
    } else made.push(whole);
  }
  made.push(text.slice(from));
  return made.filter((part) => part !== "");
}

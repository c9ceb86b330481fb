// The page of a model: what its card, its manifest and its figures tell.

import { $, bar, chips, element, percent } from "./dom.js";
import { blocks } from "./markdown.js";
import { ask, calm, complain, limitsOf } from "./server.js";

export async function showCard(name, section) {
  const input = [...$("card-models").querySelectorAll("input")].find((one) => one.value === name);
  if (!input) {
    $("card").replaceChildren(element("p", { className: "empty" }, "There is no such model here."));
    return;
  }
  input.checked = true;
  if ($("card").dataset.model !== name) {
    try {
      const card = await (await ask(`models/${encodeURIComponent(name)}/card`)).json();
      if (!input.checked) return; // another was chosen meanwhile
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
  const results = [card.front_matter?.["model-index"] ?? []]
    .flat()
    .flatMap((one) => one?.results ?? []);
  const figures = results.flatMap((one) => one?.metrics ?? []);
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
    figures.length > 0 && tiles(figures, results[0]?.dataset, card.columns ? "rows" : "texts"),
    facts(card),
    !card.page.trim() &&
      element(
        "p",
        { className: "panel hint" },
        "There is no model card in the folder of this model.",
      ),
    ...parts.map((part) => element("section", { className: "panel prose" }, ...part)),
  );
  if (!titled.length) return [body];
  const links = titled.map(([first]) => {
    const href = `#/model/${encodeURIComponent(card.name)}/${slug(first.textContent)}`;
    return element("li", {}, element("a", { href }, first.textContent));
  });
  const contents = element(
    "nav",
    { className: "contents", "aria-label": "Card" },
    element("ul", {}, ...links),
  );
  return [element("div", { className: "card-columns" }, contents, body)];
}

function slug(words) {
  return words.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-");
}

function tiles(figures, dataset, called) {
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
        `Measured on the ${dataset.split ?? ""} ${called} of `,
        element("code", {}, dataset.name ?? "the data"),
      ),
  );
}

function facts(card) {
  const rows = [
    ["Folder", element("code", {}, card.name)],
    ["Kind", element("code", {}, card.kind)],
    ["Labels", chips(card.labels)],
    card.positive && [
      "Decides",
      `for ${card.positive} from a probability of ${percent(Math.min(1, card.threshold))} on`,
    ],
    card.columns && ["Columns", chips(card.columns.map((column) => column.name))],
    card.min_score > 0 && ["Answers", `from a score of ${percent(card.min_score)}`],
    !card.columns && ["Reads", limitsOf(card) ? `at most ${limitsOf(card)}` : "the whole text"],
    ["sha256 of model.onnx", element("code", { className: "hash" }, card.sha256)],
  ].filter(Boolean);
  return element(
    "dl",
    { className: "panel facts" },
    ...rows.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value)),
    ),
  );
}

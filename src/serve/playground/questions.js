// The page on which documents are asked, and answers are shown where they stand.

import { $, bar, count, element, percent } from "./dom.js";
import { ask, busy, calm, chosen, complain, milliseconds, post } from "./server.js";

const MOST_ANSWERS = 3;
const AROUND = 600; // characters of a text of one's own that are shown around an answer
const DOCUMENTS = "documents"; // the radio button of the server's, beside that of a text

let takesFeedback = false;

/** Offer the server's documents, if it has any, beside a text of one's own. */
export async function offerDocuments() {
  const [known, feedback] = await Promise.all(
    ["documents", "feedback"].map(async (path) => (await ask(path)).json()),
  );
  takesFeedback = feedback.open;
  const number = known.documents.length;
  $("place").hidden = !number;
  $("place-documents").checked = number > 0;
  $("place-text").checked = !number;
  $("place-about").textContent =
    `${count(number, "document")} of the server, ${count(known.passages, "passage")}`;
  showPlace();
}

/** Show the field of a text where that is asked about. */
export function showPlace() {
  $("context-field").hidden = $("place-documents").checked;
}

/** Take a file as the text that is asked about. */
export async function takeDocument(file) {
  if (!file) return;
  if (!/\.(txt|md|markdown)$/i.test(file.name)) {
    $("question-status").textContent =
      `${file.name} is neither text nor Markdown: start the server with --documents for others.`;
    return;
  }
  $("context").value = await file.text();
  $("place-text").checked = true;
  showPlace();
  $("question-status").textContent = `${file.name} was taken.`;
}

let asking = new AbortController(); // of the latest question, which replaces one before it

export async function answer() {
  const question = $("question").value.trim();
  const context = $("place-documents").checked ? null : $("context").value;
  for (const [id, empty] of [
    ["question", !question],
    ["context", context !== null && !context.trim()],
  ]) {
    if (!empty) continue;
    calm();
    $("question-status").textContent = id === "question" ? "Write a question first." : "Write or drop a text first.";
    $(id).focus();
    return;
  }
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const [model] = chosen($("question-models"));
  const start = performance.now();
  try {
    const found = await busy($("answers"), $("question-status"), "Looking…", async () => {
      const body = { question, context, model: model.name, top_k: MOST_ANSWERS };
      return (await post("answer", body, signal)).json();
    });
    const cut = found.question_cut ? " Only the start of the question was read." : "";
    $("question-status").textContent = `Round trip: ${milliseconds(performance.now() - start)}.${cut}`;
    show({ question, context, model: model.name }, found);
  } catch (error) {
    complain(error, answer);
  }
}

function show(asked, found) {
  if (found.no_answer) {
    $("answers").replaceChildren(nothing(asked, found));
    return;
  }
  const rows = found.answers.map((one, k) => {
    const text = one.passage ?? asked.context;
    return element(
      "li",
      { className: "panel answer" },
      element("h2", { className: k ? "place" : "unseen" }, k ? "Another candidate" : "The answer"),
      element(
        "p",
        { className: k ? "label candidate" : "label" },
        element("bdi", {}, one.text),
        " ",
        element("span", { className: "sure" }, percent(one.probability)),
      ),
      bar(one.probability, k ? "" : "for"),
      one.document && element("p", { className: "hint", dir: "auto" }, [one.document, one.place].join(", ")),
      marked(text, one),
      thumbs(asked, { answer: one.text, start: one.start, context: text, document: one.document }),
    );
  });
  $("answers").replaceChildren(element("ol", { className: "answers" }, ...rows));
}

function nothing(asked, found) {
  const near = found.nearest;
  const text = near?.text ?? asked.context;
  return element(
    "div",
    { className: "panel answer" },
    element("p", { className: "label" }, "No answer"),
    element(
      "p",
      { className: "hint" },
      "No part of the text is probable enough to be the answer.",
      near ? " The passage that fits best:" : "",
    ),
    near && element("p", { className: "hint", dir: "auto" }, [near.document, near.place].join(", ")),
    near && element("p", { className: "marked", dir: "auto" }, near.text),
    text && thumbs(asked, { answer: "", start: null, context: text, document: near?.document ?? "" }),
  );
}

/** The text with an answer marked; of a long one what stands around it. */
function marked(text, one) {
  // The server counts characters, JavaScript counts halves of those outside the basic plane.
  const characters = Array.from(text);
  const from = Math.max(0, one.start - AROUND);
  const to = Math.min(characters.length, one.end + AROUND);
  const slice = (start, end) => characters.slice(start, end).join("");
  return element(
    "p",
    { className: "marked", dir: "auto" },
    from > 0 && "…",
    slice(from, one.start),
    element("mark", { className: "found" }, slice(one.start, one.end)),
    slice(one.end, to),
    to < characters.length && "…",
  );
}

/** Two buttons by which a person says whether an answer is right. */
function thumbs(asked, given) {
  if (!takesFeedback) return null;
  const told = element("span", { className: "hint", role: "status" });
  const buttons = [
    ["up", "Right"],
    ["down", "Wrong"],
  ].map(([rating, words]) => {
    const made = element("button", { type: "button", className: "quiet", "aria-pressed": "false" }, words);
    made.onclick = async () => {
      try {
        await post("feedback", { question: asked.question, model: asked.model, rating, ...given });
      } catch (error) {
        complain(error, () => made.click());
        return;
      }
      for (const one of buttons) one.setAttribute("aria-pressed", String(one === made));
      told.textContent = "Thank you, it is written down.";
    };
    return made;
  });
  return element("div", { className: "thumbs" }, ...buttons, told);
}

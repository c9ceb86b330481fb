// The playground: pages over the routes of the server that this one came from.

import { showCard } from "./card.js";
import { offerColours } from "./colours.js";
import { $, chips, count } from "./dom.js";
import { look, scoreFile, tellColumns } from "./file.js";
import { answer, offerDocuments, showPlace, takeDocument } from "./questions.js";
import { decide, offerFields } from "./records.js";
import { ask, calm, complain, modelsOf, offer, state } from "./server.js";
import { classify } from "./texts.js";

/** A part of the address as it was before it went there; one that somebody garbled as it is. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

const KINDS = ["texts", "records", "questions"]; // pages of which each is for some models
const MOST_LABELS = 30; // told of before there are results

let shown = ""; // the page

/** Show the page that the address names: #/texts, #/records, #/questions, #/file or #/model/NAME/SECTION. */
function route(event) {
  // The link that skips to the content and the like are the browser's own.
  if (location.hash && !location.hash.startsWith("#/")) return;
  const first = KINDS.find((kind) => modelsOf(kind).length) ?? "texts";
  const [, page = first, name, section] = location.hash.split("/").map(decoded);
  const known = $(page)?.classList.contains("page") ? page : first;
  for (const one of document.querySelectorAll(".page")) one.hidden = one.id !== known;
  for (const one of document.querySelectorAll("nav[aria-label=Pages] a")) {
    if (one.hash === `#/${known}`) one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
  }
  document.title = `${$(`${known}-title`).dataset.name} · Pedigree`;
  if (known === "model" && state.models.length) showCard(name || state.models[0].name, section);
  if (event && state.models.length) calm(); // what went wrong on another page
  if (event && known !== shown) {
    $(`${known}-title`).focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  shown = known;
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
  const [texts, tables, readers] = KINDS.map(modelsOf);
  for (const kind of KINDS) {
    document.querySelector(`nav a[href="#/${kind}"]`).hidden = !modelsOf(kind).length;
  }
  const scored = state.models.filter((model) => !readers.includes(model));
  document.querySelector('nav a[href="#/file"]').hidden = !scored.length;
  offer($("text-models"), texts, () => $("results").querySelector(".answers") && classify(), true);
  offer($("record-models"), tables, offerFields);
  if (tables.length) offerFields();
  offer($("question-models"), readers, () => $("answers").childElementCount && answer());
  if (readers.length) offerDocuments().catch((error) => complain(error, start));
  offer($("file-models"), scored, tellColumns);
  tellColumns(); // of a file that was chosen before there were models
  offer($("card-models"), state.models, (name) => {
    location.hash = `#/model/${encodeURIComponent(name)}`;
  });
  const labels = [...new Set(texts.flatMap((model) => model.labels))];
  $("labels-known").replaceChildren(
    `The models here know ${count(labels.length, "label")}:`,
    chips(labels.slice(0, MOST_LABELS)),
  );
  route();
}

/** Do what needs models, or ask for them anew if the server had none to tell of. */
function whenStarted(work) {
  return state.models.length ? work() : start();
}

/** Call `take` with the files that are dropped on a place. */
function takeDropped(place, take) {
  place.ondragover = (event) => {
    event.preventDefault();
    place.classList.add("over");
  };
  place.ondragleave = () => place.classList.remove("over");
  place.ondrop = (event) => {
    event.preventDefault();
    place.classList.remove("over");
    take(event.dataTransfer.files);
  };
}

function listen() {
  offerColours($("theme"));
  $("ask").onsubmit = (event) => {
    event.preventDefault();
    whenStarted(classify);
  };
  $("text").onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) whenStarted(classify);
  };
  $("record").onsubmit = (event) => {
    event.preventDefault();
    whenStarted(decide);
  };
  $("usual").onclick = () => whenStarted(offerFields);
  $("score").onsubmit = (event) => {
    event.preventDefault();
    whenStarted(scoreFile);
  };
  $("csv").onchange = look;
  takeDropped($("drop"), (files) => {
    $("csv").files = files;
    look();
  });
  $("ask-documents").onsubmit = (event) => {
    event.preventDefault();
    whenStarted(answer);
  };
  $("place").onchange = showPlace;
  $("document").onchange = () => takeDocument($("document").files[0]);
  takeDropped($("ask-documents"), (files) => takeDocument(files[0]));
  for (const page of document.querySelectorAll(".page h1")) page.dataset.name = page.textContent;
  addEventListener("hashchange", route);
}

listen();
route();
start();

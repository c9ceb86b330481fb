// The page: models, how they answer, and one or two conversations.

import { offerColours } from "../colours.js";
import { $, element } from "../dom.js";
import { calm, complain } from "../server.js";
import * as api from "./api.js";
import { Thread } from "./thread.js";

const WATCH = 5000; // milliseconds between looks whether the server is there
const NUMBERS = ["temperature", "top_p", "repetition_penalty", "max_tokens"];

let threads = [];
let gone = false;

const page = {
  feedback: false,
  options,
  calm,
  tell: (sentence) => ($("status").textContent = sentence),
  complain(error, again) {
    if (error.told) $("problem").replaceChildren(element("div", { className: "problem" }, element("p", {}, error.message)));
    else complain(error, again);
    if (error.status === 0) gone = true;
  },
  judges: (model) => threads.map((one) => one.model).filter((other) => other !== model),
  changed() {
    const busy = threads.some((one) => one.busy);
    $("stop").hidden = !busy;
    $("send").hidden = busy;
    for (const id of ["model", "beside", "clear", "load"]) $(id).disabled = busy;
    page.tell(busy ? "Answering…" : "");
  },
  /** Take a message back to where it is written, with all that came after it. */
  edit(thread, place) {
    if (threads.some((one) => one.busy)) return;
    const before = thread.turns.slice(0, place).filter((turn) => turn.role === "user").length;
    $("message").value = thread.turns[place].content;
    for (const one of threads) {
      const users = one.turns.flatMap((turn, k) => (turn.role === "user" ? [k] : []));
      if (users.length > before) one.cut(users[before]);
    }
    $("message").focus();
  },
};

/** What the fields say; an Error with a sentence if the tools are none. */
function options() {
  const numbers = Object.fromEntries(NUMBERS.map((id) => [id, Number($(id).value)]));
  return { system: $("system").value.trim(), tools: tools(), ...numbers };
}

function tools() {
  const text = $("tools").value.trim();
  if (!text) return [];
  let found;
  try {
    found = JSON.parse(text);
  } catch (error) {
    throw Object.assign(new Error(`The tools are no JSON: ${error.message}.`), { told: true });
  }
  const list = Array.isArray(found) ? found : [found];
  return list.map((tool) => {
    const of = tool?.function ?? tool;
    if (typeof of?.name !== "string") {
      throw Object.assign(new Error("A tool has no name: give each one."), { told: true });
    }
    return { type: "function", function: of };
  });
}

function arrange() {
  const wanted = [$("model").value, $("beside").value].filter(Boolean);
  const names = wanted[0] === wanted[1] ? wanted.slice(0, 1) : wanted;
  const first = threads[0];
  const kept = new Map(threads.map((one) => [one.model, one]));
  threads = names.map((model) => {
    if (kept.has(model)) return kept.get(model);
    const made = new Thread(model, page);
    // Another model goes on with what was said to the one before it, unless both stay.
    if (first && !names.includes(first.model)) made.show(first.turns);
    return made;
  });
  $("threads").classList.toggle("two", threads.length > 1);
  for (const one of threads) one.heading.className = threads.length > 1 ? "" : "unseen";
  $("threads").replaceChildren(...threads.map((one) => one.place));
}

async function start() {
  try {
    const names = await api.models();
    page.feedback = await api.takesFeedback();
    const chosen = [$("model").value, $("beside").value];
    const option = (name) => element("option", { value: name }, name);
    $("model").replaceChildren(...names.map(option));
    $("beside").replaceChildren(element("option", { value: "" }, "none"), ...names.map(option));
    if (names.includes(chosen[0])) $("model").value = chosen[0];
    if (names.includes(chosen[1])) $("beside").value = chosen[1];
    calm();
    gone = false;
    arrange();
  } catch (error) {
    page.complain(error, start);
  }
}

/** Look whether the server is there, and say when it goes and when it is back. */
async function watch() {
  if (!threads.some((one) => one.busy)) {
    const is = await fetch("health").then((answer) => answer.ok, () => false);
    if (!is && !gone) page.complain(Object.assign(new Error("The server has gone. This page waits until it is back."), { told: true }));
    if (is && gone) {
      await start();
      page.tell("The server is back.");
    }
    gone = !is;
  }
  setTimeout(watch, WATCH);
}

async function send() {
  const text = $("message").value;
  if (!text.trim() || !threads.length || threads.some((one) => one.busy)) return;
  calm();
  try {
    options();
  } catch (error) {
    page.complain(error);
    return;
  }
  $("message").value = "";
  await Promise.all(threads.map((one) => one.say(text)));
}

/** Hand over the conversations as lines that the stage `data` reads. */
function save() {
  const { system, tools: given } = options();
  const head = system ? [{ role: "system", content: system }] : [];
  const lines = threads
    .filter((one) => one.turns.length)
    .map((one) => {
      const messages = [...head, ...one.turns.map(api.plain)];
      return JSON.stringify({ id: one.model, messages, ...(given.length && { tools: given }) });
    });
  const file = new Blob(lines.map((line) => `${line}\n`), { type: "application/jsonl" });
  const link = element("a", { href: URL.createObjectURL(file), download: "conversation.jsonl" });
  link.click();
  URL.revokeObjectURL(link.href);
}

async function load() {
  const file = $("load").files[0];
  $("load").value = "";
  if (!file) return;
  try {
    const line = (await file.text()).split("\n").find((one) => one.trim());
    const found = JSON.parse(line ?? "");
    if (!Array.isArray(found.messages)) throw new SyntaxError("it has no messages");
    const system = found.messages[0]?.role === "system" ? found.messages[0].content : "";
    const turns = found.messages.slice(system ? 1 : 0).map(readable);
    $("system").value = system;
    $("tools").value = found.tools ? JSON.stringify(found.tools.map((one) => one.function ?? one), null, 1) : "";
    calm();
    for (const one of threads) one.show(turns);
    page.tell(`${turns.length} messages are here again.`);
  } catch (error) {
    const sentence = `${file.name} holds no conversation that was saved here (${error.message}).`;
    page.complain(Object.assign(new Error(sentence), { told: true }));
  }
}

/** A message as the page holds it; OpenAI's may have no content beside calls. */
function readable({ role, content, tool_calls = [], tool_call_id }, place) {
  if (!["user", "assistant", "tool"].includes(role)) throw new SyntaxError(`message ${place + 1} has no role`);
  if (content && typeof content !== "string") throw new SyntaxError(`message ${place + 1} is no text`);
  const calls = (tool_calls ?? []).map((call, k) => ({ ...call, id: call.id ?? `call-${place}-${k}` }));
  return { role, content: content ?? "", tool_calls: calls, tool_call_id };
}

function listen() {
  offerColours($("theme"));
  $("composer").onsubmit = (event) => {
    event.preventDefault();
    send();
  };
  $("message").onkeydown = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("composer").requestSubmit();
  };
  $("stop").onclick = () => threads.forEach((one) => one.stop());
  $("clear").onclick = () => {
    for (const one of threads) one.show([]);
    calm();
    $("message").focus();
  };
  $("save").onclick = () => {
    try {
      save();
    } catch (error) {
      page.complain(error);
    }
  };
  $("load").onchange = load;
  $("model").onchange = arrange;
  $("beside").onchange = arrange;
}

listen();
start();
setTimeout(watch, WATCH);

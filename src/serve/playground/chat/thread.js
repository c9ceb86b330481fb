// A conversation with one model: its turns, and what can be done with each.

import { count, element } from "../dom.js";
import { blocks } from "../markdown.js";
import * as api from "./api.js";

const NEAR = 120; // pixels from the end of the page, within which it is followed
const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 2, minimumFractionDigits: 2 });

export class Thread {
  /**
   * @param {string} model
   * @param {object} page what a thread needs of the page: options(), complain(error, again),
   *   tell(sentence), edit(turn), judges(model): names of other models, changed()
   */
  constructor(model, page) {
    this.model = model;
    this.page = page;
    this.turns = []; // messages of OpenAI's API
    this.abort = null;
    this.list = element("ol", { className: "talk" });
    this.heading = element("h2", {}, model);
    const name = `Conversation with ${model}`;
    this.place = element("section", { className: "thread", "aria-label": name }, this.heading, this.list);
  }

  get busy() {
    return this.abort !== null;
  }

  /** Show turns that were had elsewhere. */
  show(turns) {
    this.turns = turns.map((turn) => ({ ...turn }));
    this.draw();
  }

  draw() {
    follow(() => {
      this.list.replaceChildren(...this.turns.map((turn, place) => this.item(turn, place)));
    });
  }

  /** Forget a turn and all after it. */
  cut(place) {
    this.turns.length = place;
    this.draw();
  }

  say(content) {
    this.turns.push({ role: "user", content });
    return this.answer();
  }

  /** Have the model answer what was said last. */
  async answer() {
    if (this.busy) return;
    let request;
    try {
      request = api.body(this.model, this.turns, this.page.options());
    } catch (error) {
      this.draw();
      this.page.complain(error, () => this.answer());
      return;
    }
    const turn = { role: "assistant", content: "", tool_calls: [], request };
    this.abort = new AbortController();
    this.turns.push(turn);
    this.draw();
    const item = this.list.lastElementChild;
    item.setAttribute("aria-busy", "true");
    this.page.calm();
    this.page.changed();
    let usage = null;
    try {
      for await (const event of api.stream(request, this.abort.signal)) {
        usage = event.usage ?? usage;
        const choice = event.choices[0];
        if (!choice) continue;
        turn.content += choice.delta.content ?? "";
        collect(turn.tool_calls, choice.delta.tool_calls ?? []);
        turn.reason = choice.finish_reason ?? turn.reason;
        follow(() => this.words(item, turn));
      }
    } catch (error) {
      if (error.name !== "AbortError") {
        this.turns.splice(this.turns.indexOf(turn), 1);
        this.done();
        this.draw();
        this.page.complain(error, () => this.answer());
        return;
      }
      turn.reason = "stopped";
    }
    if (!turn.content && !turn.tool_calls.length && turn.reason === "stopped") this.turns.pop();
    this.done();
    this.draw();
    if (usage) await this.judge(turn, usage);
  }

  done() {
    this.abort = null;
    this.page.changed();
  }

  stop() {
    this.abort?.abort();
  }

  /** Tell how likely an answer is to its model and to the one beside it. */
  async judge(turn, usage) {
    const others = this.page.judges(this.model);
    turn.tokens = usage.completion_tokens;
    if (others.length && turn.content && !turn.tool_calls.length) {
      turn.likely = [];
      for (const model of [this.model, ...others]) {
        try {
          const mean = await api.likelihood({ ...turn.request, model }, turn.content, usage.prompt_tokens);
          turn.likely.push([model, mean]);
        } catch (error) {
          this.page.complain(error, () => this.judge(turn, usage));
          return;
        }
      }
    }
    if (this.turns.includes(turn)) this.draw();
  }

  item(turn, place) {
    const names = { user: "You", assistant: this.model, tool: "Tool" };
    const who = element("span", { className: "unseen" }, `${names[turn.role]}:`);
    const item = element("li", { className: `turn ${turn.role}` }, who);
    this.words(item, turn);
    item.append(...this.further(turn, place));
    return item;
  }

  /** Write what a turn says into its item, in place of what stood there. */
  words(item, turn) {
    const said = element("div", { className: "words", dir: "auto" });
    if (turn.role === "assistant") said.append(...blocks(turn.content));
    else said.append(turn.content);
    item.querySelector(".words")?.remove();
    if (turn.content || turn.role !== "assistant" || !turn.tool_calls?.length) {
      item.querySelector(".unseen").after(said);
    }
  }

  further(turn, place) {
    const last = place === this.turns.length - 1;
    const acts = [button("Copy", () => this.copy(turn))];
    if (turn.role === "user") acts.push(button("Edit", () => this.page.edit(this, place)));
    const said = turn.role === "assistant" && !this.busy;
    if (said && last) acts.push(button("Retry", () => this.retry()));
    if (said && turn.request && this.page.feedback) {
      acts.push(...["up", "down"].map((rating) => this.thumb(turn, rating)));
    }
    const calls = (turn.tool_calls ?? []).map((call) => this.call(call, place));
    const told = figures(turn);
    return [
      ...calls,
      element("div", { className: "acts" }, ...acts),
      told && element("p", { className: "figures" }, told),
    ].filter(Boolean);
  }

  thumb(turn, rating) {
    const words = { up: "Good", down: "Bad" }[rating];
    const made = button(words, async () => {
      try {
        // As it was asked then, with what was said to the model before all and its tools.
        const { messages, tools } = turn.request;
        await api.feedback(rating, this.model, [...messages, turn], tools ?? []);
      } catch (error) {
        this.page.complain(error, () => made.click());
        return;
      }
      turn.rating = rating;
      this.draw();
      this.page.tell("Thank you, it is written down.");
    });
    made.setAttribute("aria-pressed", String(turn.rating === rating));
    return made;
  }

  /** The card of a call, and where the answer of its tool goes. */
  call(call, place) {
    const answered = this.turns.some((turn) => turn.tool_call_id === call.id);
    const card = element(
      "div",
      { className: "call", role: "group", "aria-label": `Call of ${call.function.name}` },
      element("h3", {}, call.function.name),
      element("pre", {}, pretty(call.function.arguments ?? "{}")),
    );
    if (answered || this.busy) return card;
    const id = `observation-${this.model}-${place}-${call.id}`;
    const field = element("textarea", { id, rows: 2, dir: "auto", className: "code-field" });
    const go = button("Go on", () => {
      if (this.busy) return;
      this.turns.push({ role: "tool", content: field.value, tool_call_id: call.id });
      this.draw();
      const open = this.turns[place].tool_calls.some(
        (one) => !this.turns.some((turn) => turn.tool_call_id === one.id),
      );
      if (!open) this.answer();
    });
    go.className = "primary";
    const label = element("label", { htmlFor: id }, "What the tool answers");
    card.append(element("div", {}, label, field), go);
    return card;
  }

  retry() {
    if (this.busy) return undefined;
    this.turns.length -= 1;
    return this.answer();
  }

  async copy(turn) {
    await navigator.clipboard.writeText(turn.content);
    this.page.tell("Copied.");
  }
}

/** Do what makes the page longer, and stay at its end if that is what is looked at. */
function follow(work) {
  const page = document.scrollingElement;
  const atEnd = page.scrollHeight - page.scrollTop - page.clientHeight < NEAR;
  work();
  if (atEnd) page.scrollTop = page.scrollHeight;
}

/** Put the parts of calls together, as they come in a stream. */
function collect(calls, parts) {
  for (const { index, ...part } of parts) {
    const call = (calls[index] ??= { id: "", type: "function", function: { name: "", arguments: "" } });
    call.id ||= part.id ?? "";
    call.function.name += part.function?.name ?? "";
    call.function.arguments += part.function?.arguments ?? "";
  }
}

function figures(turn) {
  const parts = [];
  if (turn.reason === "length") parts.push("cut where the longest answer ends");
  if (turn.reason === "stopped") parts.push("stopped");
  if (turn.tokens) parts.push(count(turn.tokens, "token"));
  const likely = (turn.likely ?? []).filter(([, mean]) => Number.isFinite(mean));
  const means = likely.map(([model, mean]) => `${NUMBER.format(mean)} under ${model}`);
  if (means.length) parts.push(`log-probability a token: ${means.join(", ")}`);
  return parts.join(" · ");
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function button(words, onclick) {
  return element("button", { type: "button", onclick }, words);
}

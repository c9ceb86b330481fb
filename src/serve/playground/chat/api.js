// The routes of OpenAI's API that the page asks.

import { ask, post } from "../server.js";

/** What a conversation is asked by, as the fields of the page say it. */
export function body(model, messages, options) {
  const { system, tools, ...way } = options;
  const told = system ? [{ role: "system", content: system }, ...messages] : messages;
  return { model, messages: told.map(plain), ...way, ...(tools.length && { tools }) };
}

/** A message without what only this page keeps of it. */
export function plain({ role, content, tool_calls, tool_call_id }) {
  return {
    role,
    content,
    ...(tool_calls?.length && { tool_calls }),
    ...(tool_call_id && { tool_call_id }),
  };
}

/** The names of the models. */
export async function models() {
  const found = await (await ask("v1/models")).json();
  return found.data.map((model) => model.id);
}

/**
 * Ask for an answer, and give each event of it as it comes.
 * @param {object} request
 * @param {AbortSignal} signal
 */
export async function* stream(request, signal) {
  const whole = { ...request, stream: true, stream_options: { include_usage: true } };
  const answer = await post("v1/chat/completions", whole, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    text += value ?? "";
    const lines = text.split("\n");
    text = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const event = JSON.parse(line.slice("data: ".length));
      if (event.error) throw Object.assign(new Error(event.error.message), { told: true });
      yield event;
    }
    if (done) return;
  }
}

/** The mean log-probability of a token of an answer under a model, and how many it has. */
export async function likelihood(request, answer, promptTokens, signal) {
  const { model, messages, tools } = request;
  const said = [...messages, { role: "assistant", content: answer }];
  const judged = { prompt_logprobs: 0, add_generation_prompt: false, continue_final_message: true };
  const asked = { model, messages: said, ...(tools && { tools }), max_tokens: 1, ...judged };
  const found = await (await post("v1/chat/completions", asked, signal)).json();
  const tokens = found.prompt_logprobs.slice(promptTokens);
  const sum = tokens.reduce((total, token) => total + Object.values(token)[0].logprob, 0);
  return tokens.length ? sum / tokens.length : NaN;
}

/** Whether the server takes what people think of answers. */
export async function takesFeedback() {
  try {
    return (await (await ask("feedback")).json()).open;
  } catch {
    return false;
  }
}

export async function feedback(rating, model, messages, tools) {
  await post("feedback", { rating, model, messages: messages.map(plain), tools });
}

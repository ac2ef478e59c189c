/** The page's script. It speaks the server's OpenAI route and nothing else; text becomes nodes, never markup. */

const element = (id) => document.getElementById(id);
const [chat, text, status, send, stop] = ["chat", "text", "status", "send", "stop"].map(element);

/** The conversation so far, as the server gets it. */
let messages = [];
/** The answer that is on its way. */
let running = null;

const headers = () => {
  const key = element("key").value.trim();
  return { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) };
};

async function listModels() {
  const response = await fetch("/v1/models", { headers: headers() });
  if (response.status === 401) {
    showSettings(true);
    element("key").focus();
    status.textContent = "This server asks for a key.";
    return;
  }
  const { data } = await response.json();
  const select = element("model");
  const chosen = select.value;
  select.replaceChildren(...data.map(({ id }) => new Option(id, id)));
  if (data.some(({ id }) => id === chosen)) select.value = chosen;
}

/** What the settings say, without what is left to the server. */
function settings() {
  const numbers = ["temperature", "top_p", "max_tokens", "seed"].flatMap((id) => {
    const { value } = element(id);
    return value === "" ? [] : [[id, Number(value)]];
  });
  const thinking = element("thinking").value;
  return {
    ...Object.fromEntries(numbers),
    ...(thinking && { chat_template_kwargs: { enable_thinking: thinking === "on" } }),
  };
}

/** Text with fenced code, code in a line, and paragraphs. */
function written(source) {
  const nodes = [];
  for (const [i, block] of source.split(/^```[^\n]*\n?/m).entries()) {
    if (i % 2 === 1) {
      const pre = document.createElement("pre");
      pre.append(block.replace(/\n$/, ""));
      nodes.push(pre);
      continue;
    }
    for (const paragraph of block.split(/\n{2,}/)) {
      if (paragraph.trim() === "") continue;
      const p = document.createElement("p");
      for (const [j, piece] of paragraph.trim().split("`").entries()) {
        if (j % 2 === 0) p.append(piece);
        else p.append(Object.assign(document.createElement("code"), { textContent: piece }));
      }
      nodes.push(p);
    }
  }
  return nodes;
}

function article(role) {
  element("hint")?.remove();
  const made = document.createElement("article");
  made.className = role;
  chat.append(made);
  return made;
}

/** Draws an answer as it grows, once a frame. */
class Answer {
  constructor() {
    this.node = article("assistant");
    this.text = "";
    this.thoughts = "";
    this.error = "";
    this.isDrawn = true;
  }

  draw() {
    if (!this.isDrawn) return;
    this.isDrawn = false;
    requestAnimationFrame(() => {
      this.isDrawn = true;
      const isAtEnd = chat.scrollHeight - chat.scrollTop - chat.clientHeight < 60;
      const nodes = written(this.text);
      if (this.thoughts !== "") {
        const details = document.createElement("details");
        details.open = this.text === "";
        details.append(
          Object.assign(document.createElement("summary"), { textContent: "Thoughts" }),
          this.thoughts.trim(),
        );
        nodes.unshift(details);
      }
      if (this.error !== "") {
        nodes.push(Object.assign(document.createElement("p"), { className: "error", textContent: this.error }));
      }
      this.node.replaceChildren(...nodes);
      if (isAtEnd) chat.scrollTop = chat.scrollHeight;
    });
  }
}

/** The events of a stream. */
async function* events(body) {
  let rest = "";
  for await (const piece of body.pipeThrough(new TextDecoderStream())) {
    const blocks = (rest + piece).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      if (block.startsWith("data: ") && block !== "data: [DONE]") yield JSON.parse(block.slice(6));
    }
  }
}

async function ask(question) {
  // A new chat may begin before the answer ends.
  const conversation = messages;
  conversation.push({ role: "user", content: question });
  article("user").textContent = question;
  const answer = new Answer();
  const stopped = new AbortController();
  running = stopped;
  setRunning(true);
  const began = performance.now();
  let first = 0;
  let count = 0;
  try {
    const system = element("system").value.trim();
    const response = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: headers(),
      signal: stopped.signal,
      body: JSON.stringify({
        model: element("model").value,
        messages: [...(system ? [{ role: "system", content: system }] : []), ...conversation],
        stream: true,
        stream_options: { include_usage: true },
        ...settings(),
      }),
    });
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const { choices, usage, error } of events(response.body)) {
      if (error) throw new Error(error.message);
      if (usage) count = usage.completion_tokens;
      const delta = choices?.[0]?.delta;
      if (!delta || !(delta.content || delta.reasoning_content)) continue;
      first ||= performance.now();
      answer.text += delta.content ?? "";
      answer.thoughts += delta.reasoning_content ?? "";
      answer.draw();
      if (!usage) status.textContent = `${((performance.now() - began) / 1000).toFixed(1)} s`;
    }
    if (first === 0) {
      status.textContent = "The answer is empty.";
      return;
    }
    const seconds = (performance.now() - first) / 1000;
    const wait = ((first - began) / 1000).toFixed(2);
    status.textContent = `${count} tokens · ${((count - 1) / seconds).toFixed(1)} tokens/s · first after ${wait} s`;
  } catch (error) {
    if (!stopped.signal.aborted) answer.error = error.message;
    else if (conversation === messages) status.textContent = "Stopped.";
  } finally {
    answer.draw();
    if (answer.text !== "") conversation.push({ role: "assistant", content: answer.text });
    else conversation.pop();
    if (running === stopped) setRunning(false);
  }
}

function setRunning(isRunning) {
  if (!isRunning) running = null;
  send.hidden = isRunning;
  stop.hidden = !isRunning;
  text.focus();
}

function showSettings(isShown) {
  element("settings").hidden = !isShown;
  element("toggle").setAttribute("aria-expanded", String(isShown));
}

function begin() {
  running?.abort();
  setRunning(false);
  messages = [];
  chat.replaceChildren();
  status.textContent = "";
  text.focus();
}

element("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = text.value.trim();
  if (question === "" || running) return;
  text.value = "";
  grow();
  void ask(question);
});

/** The field is as high as its text. */
function grow() {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;
}

text.addEventListener("input", grow);
text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  element("ask").requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
  else if (event.altKey && event.code === "KeyN") begin();
  else if (event.altKey && event.code === "KeyS") showSettings(element("settings").hidden);
  else return;
  event.preventDefault();
});
stop.addEventListener("click", () => running?.abort());
element("new").addEventListener("click", begin);
element("toggle").addEventListener("click", () => showSettings(element("settings").hidden));
element("settings").addEventListener("submit", (event) => event.preventDefault());
element("key").addEventListener("change", () => void listModels());

await listModels().catch((error) => {
  status.textContent = `The models cannot be listed: ${error.message}`;
});

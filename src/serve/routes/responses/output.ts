/** What a response says, as items that grow, and the events that tell of their growth. */
import type { AnswerToken } from "../../../generate/answer";
import type { Part } from "../../generation";
import { type CallEvent, ToldCalls } from "../../told-calls";
import { newId } from "../openai/fields";
import { type Item, packed } from "./request";

export type OutputItem =
  | {
      id: string;
      type: "reasoning";
      summary: never[];
      content: { type: "reasoning_text"; text: string }[];
      encrypted_content?: string;
      status: Status;
    }
  | {
      id: string;
      type: "message";
      role: "assistant";
      status: Status;
      content: { type: "output_text"; text: string; annotations: never[]; logprobs: object[] }[];
    }
  | {
      id: string;
      type: "function_call";
      call_id: string;
      name: string;
      namespace?: string;
      arguments: string;
      status: Status;
    };

type Status = "in_progress" | "completed";

export type OutputEvent = { type: string } & Record<string, unknown>;

export interface OutputOptions {
  /** Give thoughts in the form too that clients keep. */
  packsThoughts: boolean;
  logprobsOf(tokens: readonly AnswerToken[]): object[];
  namespaceOf(tool: string): string | undefined;
}

export class Output {
  readonly items: OutputItem[] = [];
  #open: OutputItem | null = null;
  readonly #told = new ToldCalls();

  constructor(private readonly options: OutputOptions) {}

  /** All thoughts. */
  get thoughts(): string {
    return this.items
      .flatMap((item) => (item.type === "reasoning" ? item.content.map(({ text }) => text) : []))
      .join("");
  }

  /** As items of the conversation that goes on. */
  get asInput(): Item[] {
    return this.items.map((item) => {
      if (item.type !== "message") return item;
      return { type: "message", role: "assistant", content: item.content.map(({ text }) => text).join("") };
    });
  }

  *add(part: Exclude<Part, { type: "end" }>): Generator<OutputEvent> {
    for (const event of this.#told.add(part)) yield* this.#call(event);
    if (part.type === "thought") yield* this.#thought(part.text);
    else if (part.type === "text" || part.type === "malformed") yield* this.#text(part.text, part.tokens ?? []);
  }

  /** Closes what is open. */
  *end(): Generator<OutputEvent> {
    for (const event of this.#told.add({ type: "end" })) yield* this.#call(event);
    yield* this.#close();
  }

  *#close(): Generator<OutputEvent> {
    const item = this.#open;
    this.#open = null;
    if (!item) return;
    item.status = "completed";
    const place = this.#place(item);
    if (item.type === "message") {
      const [part] = item.content;
      yield {
        type: "response.output_text.done",
        ...place,
        content_index: 0,
        text: part!.text,
        logprobs: part!.logprobs,
      };
      yield { type: "response.content_part.done", ...place, content_index: 0, part: part! };
    } else if (item.type === "reasoning") {
      const [part] = item.content;
      if (this.options.packsThoughts) item.encrypted_content = packed(part!.text);
      yield { type: "response.reasoning_text.done", ...place, content_index: 0, text: part!.text };
      yield { type: "response.content_part.done", ...place, content_index: 0, part: part! };
    }
    yield { type: "response.output_item.done", output_index: place.output_index, item };
  }

  #place({ id }: OutputItem) {
    return { item_id: id, output_index: this.items.length - 1 };
  }

  *#begin(item: OutputItem): Generator<OutputEvent> {
    yield* this.#close();
    this.items.push(item);
    this.#open = item;
    const empty = item.type === "function_call" ? { ...item, arguments: "" } : { ...item, content: [] };
    yield { type: "response.output_item.added", output_index: this.items.length - 1, item: empty };
    if (item.type === "function_call") return;
    yield { type: "response.content_part.added", ...this.#place(item), content_index: 0, part: { ...item.content[0] } };
  }

  *#text(text: string, tokens: readonly AnswerToken[]): Generator<OutputEvent> {
    if (this.#open?.type !== "message") {
      const content = [{ type: "output_text" as const, text: "", annotations: [], logprobs: [] }];
      yield* this.#begin({ id: newId("msg_"), type: "message", role: "assistant", status: "in_progress", content });
    }
    const item = this.#open as Extract<OutputItem, { type: "message" }>;
    const logprobs = this.options.logprobsOf(tokens);
    item.content[0]!.text += text;
    item.content[0]!.logprobs.push(...logprobs);
    yield { type: "response.output_text.delta", ...this.#place(item), content_index: 0, delta: text, logprobs };
  }

  *#thought(text: string): Generator<OutputEvent> {
    if (this.#open?.type !== "reasoning") {
      const content = [{ type: "reasoning_text" as const, text: "" }];
      yield* this.#begin({ id: newId("rs_"), type: "reasoning", summary: [], content, status: "in_progress" });
    }
    const item = this.#open as Extract<OutputItem, { type: "reasoning" }>;
    item.content[0]!.text += text;
    yield { type: "response.reasoning_text.delta", ...this.#place(item), content_index: 0, delta: text };
  }

  *#call(event: CallEvent): Generator<OutputEvent> {
    if (event.type === "start") {
      const call_id = event.id ?? newId("call_");
      const { name } = event;
      const namespace = this.options.namespaceOf(name);
      yield* this.#begin({
        ...{ id: newId("fc_"), type: "function_call", call_id, name, arguments: "", status: "in_progress" },
        ...(namespace !== undefined && { namespace }),
      });
      return;
    }
    const item = this.#open as Extract<OutputItem, { type: "function_call" }>;
    const place = this.#place(item);
    if (event.type === "arguments") {
      item.arguments += event.text;
      yield { type: "response.function_call_arguments.delta", ...place, delta: event.text };
      return;
    }
    const { name, arguments: text } = item;
    yield { type: "response.function_call_arguments.done", ...place, name, arguments: text };
    yield* this.#close();
  }
}

/** A model that says what it is told to, for answers that the demo would never give. */
import type { OpenedModel } from "../src/generate/open-model";
import type { Step, Stepper, StepRequest } from "../src/generate/stepper";
import type { Tokenizer } from "../src/text/tokenizer";
import { chainModel } from "./chain-model";
import { thinkingTokenizer } from "./thinking-tokenizer";

export interface Script {
  /** What is answered next. */
  text: string;
  /** The prompts that were asked, as text. */
  prompts: string[];
}

/** Says the script's text, and then the end. */
export class ScriptStepper implements Stepper {
  readonly model = chainModel(new Map(), 0);

  constructor(
    private readonly tokenizer: Tokenizer,
    private readonly script: Script,
  ) {}

  async *steps({ prompt, maxTokens = -1, signal, onPrefill }: StepRequest): AsyncGenerator<Step, void, void> {
    this.script.prompts.push(this.tokenizer.decode([...prompt]));
    onPrefill?.(prompt.length, prompt.length);
    const tokens = await this.tokenizer.encode(this.script.text, { addSpecialTokens: false });
    const [eos] = this.tokenizer.eosTokenIds;
    for (const token of [...tokens, eos!].slice(0, maxTokens < 0 ? undefined : maxTokens)) {
      if (signal?.aborted) return;
      yield { token, logprobs: null, fromDraft: false };
      await Bun.sleep(0);
    }
  }

  dispose(): void {}
}

/** A model with markers of thoughts and of calls, of which only the tokenizer is real. */
export async function scriptedModel(): Promise<OpenedModel> {
  const tokenizer = await thinkingTokenizer();
  const [eos] = tokenizer.eosTokenIds;
  return { model: chainModel(new Map(), eos!), tokenizer, config: {}, folder: "/nowhere", contextLength: 4096 };
}

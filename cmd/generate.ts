/** `mlxlm generate`: text from a prompt. */
import { command } from "../src/cli/command";
import { gigabytes } from "../src/cli/flags";
import { kvQuantization } from "../src/cli/kv-quantization";
import { ExitCode, UserError } from "../src/errors";
import { generateFlags } from "./generate.flags";

export default command({
  name: "generate",
  summary: "Generate text from a prompt",
  examples: [
    'mlxlm generate --model demo --prompt "What is 27 + 58?"',
    'mlxlm generate --model mlx-community/Qwen3-4B-4bit --prompt "Why is the sky blue?"',
    "mlxlm generate --model ./my-model --prompt - --temp 0.7 --seed 1 < question.txt",
  ],
  flags: generateFlags,

  async run({ flags, out, signal }) {
    // What needs the native library is loaded here, so that --help does not.
    const mx = await import("../src/mlx");
    const { openModel } = await import("../src/cli/model");
    const { checkContext, encodePrompt, unescapePrompt } = await import("../src/generate/prompt");
    const { openSavedCache } = await import("../src/cli/saved-cache");
    const { streamGenerate } = await import("../src/generate/stream");
    const { makeSampler } = await import("../src/sample");

    if (flags.device) mx.setDefaultDevice(flags.device);
    // Before loading, as the reference does: making the model draws random numbers too.
    if (flags.seed !== undefined) mx.random.seed(flags.seed);

    const saved = flags.promptCacheFile === undefined ? null : await openSavedCache(flags);
    const { model, tokenizer, contextLength } = await openModel(saved?.model ?? flags.model, out, signal, flags);
    saved?.checkModel(model);
    const draft = flags.draftModel === undefined ? null : await openModel(flags.draftModel, out, signal);
    if (draft && draft.tokenizer.vocabSize !== tokenizer.vocabSize) {
      const [theirs, ours] = [draft.tokenizer.vocabSize, tokenizer.vocabSize];
      throw new UserError(`the draft model's tokenizer has ${theirs} tokens, the model's ${ours}`, {
        code: ExitCode.usage,
        hint: "Take a smaller model of the same family.",
      });
    }
    if (saved?.eosToken) tokenizer.addEosToken(saved.eosToken);
    for (const token of flags.extraEosToken) tokenizer.addEosToken(/^\d+$/.test(token) ? Number(token) : token);

    const text = flags.prompt === "-" ? await Bun.stdin.text() : unescapePrompt(flags.prompt);
    const prompt = await encodePrompt(tokenizer, text, {
      system: flags.systemPrompt,
      prefill: flags.prefillResponse,
      raw: flags.ignoreChatTemplate,
      templateVariables: flags.chatTemplateConfig,
      continues: saved !== null,
    });
    checkContext(prompt.length + (saved?.tokens ?? 0), contextLength);
    const sampler = makeSampler({
      temp: flags.temp,
      topP: flags.topP,
      minP: flags.minP,
      topK: flags.topK,
      minTokensToKeep: flags.minTokensToKeep,
      xtcProbability: flags.xtcProbability,
      xtcThreshold: flags.xtcThreshold,
      xtcSpecialTokens: [...(await tokenizer.encode("\n")), ...tokenizer.eosTokenIds],
    });

    const bar = out.progress("Prompt", { unit: "tok", total: prompt.length });
    const cache = saved?.cache ?? model.makeCache({ maxSize: flags.maxKvSize });
    const rule = "=".repeat(10);
    if (flags.verbose) out.info(rule);
    let answer = "";
    let last: import("../src/generate/stream").GenerationResponse | undefined;
    try {
      for await (const response of streamGenerate(model, tokenizer, prompt, {
        maxTokens: flags.maxTokens,
        prefillStepSize: flags.prefillStepSize,
        onPrefill: (done, total) => bar.at(done, total),
        sampler,
        cache,
        kvQuantization: kvQuantization(flags),
        maxMemory: gigabytes(flags.maxMemory),
        draft: draft ? { model: draft.model, tokens: flags.numDraftTokens } : undefined,
        signal,
      })) {
        if (!last) bar.end();
        out.text(response.text);
        answer += response.text;
        last = response;
      }
    } finally {
      bar.end();
      for (const layer of cache) layer.dispose();
      model.dispose();
      draft?.model.dispose();
    }

    out.text("\n");
    if (last && flags.verbose) {
      out.info(rule);
      if (answer === "") out.info("No text generated for this prompt");
      else for (const line of statistics(last)) out.info(line);
    }
    if (last) {
      const { token: _, from_draft: __, ...figures } = last;
      out.result({ ...figures, text: answer });
    }
    if (signal.aborted) process.exitCode = ExitCode.interrupted;
  },
});

/** The three lines that mlx-lm prints. */
function statistics(last: import("../src/generate/stream").GenerationResponse): string[] {
  return [
    `Prompt: ${last.prompt_tokens} tokens, ${last.prompt_tps.toFixed(3)} tokens-per-sec`,
    `Generation: ${last.generation_tokens} tokens, ${last.generation_tps.toFixed(3)} tokens-per-sec`,
    `Peak memory: ${last.peak_memory.toFixed(3)} GB`,
  ];
}

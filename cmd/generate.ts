/** `mlxlm generate`: text from a prompt. */
import { answerFormat } from "../src/cli/answer-format";
import { checkSettings } from "../src/cli/chat/settings";
import { command } from "../src/cli/command";
import { checkDrafts, draftLine, draftsOf } from "../src/cli/drafts";
import { gigabytes } from "../src/cli/flags";
import { fromLead } from "../src/cli/group";
import { kvQuantization } from "../src/cli/kv-quantization";
import { wasGiven } from "../src/cli/parse";
import { checkPromptLength, checkPromptText, hasPipedText, isFileOnStdin, pipedText } from "../src/cli/piped";
import { ExitCode, UserError } from "../src/errors";
import type { End } from "../src/generate/answer";
import { generateFlags } from "./generate.flags";

export default command({
  name: "generate",
  summary: "Generate text from a prompt",
  examples: [
    'mlxlm generate demo "What is 27 + 58?"',
    'mlxlm generate --model mlx-community/Qwen3-4B-4bit --prompt "Why is the sky blue?"',
    "mlxlm generate --model ./my-model --prompt - --temp 0.7 --seed 1 < question.txt",
    "mlxlm generate --model ./my-model --draft ngram --prompt - < text-to-edit.txt",
    'mlxlm generate --model ./muse-spark --image map.png --prompt "Which river is this?"',
    'mlxlm generate --model mlx-community/Qwen3-4B-4bit --json-schema person.json --prompt "Who wrote Faust?"',
  ],
  flags: generateFlags,
  computes: true,
  ranks: true,

  async run({ flags, out, signal }) {
    checkPromptText(flags.prompt);
    checkSettings(flags);
    checkDrafts(flags);
    if (flags.jsonSchema === "-" && flags.prompt === "-") throw bothOnStdin();
    const format = await answerFormat(flags);
    if (format && flags.prefillResponse !== undefined) throw noPrefill();
    // What needs the native library is loaded here, so that --help does not.
    const mx = await import("../src/mlx");
    const { openModel } = await import("../src/cli/model");
    const { checkContext, encodePrompt, unescapePrompt } = await import("../src/generate/prompt");
    const { openSavedCache } = await import("../src/cli/saved-cache");
    const { answer } = await import("../src/generate/answer");
    const { constrain } = await import("../src/generate/constrain");
    const { DraftStepper } = await import("../src/generate/draft-stepper");
    const { LoneStepper } = await import("../src/generate/lone-stepper");
    const { readSharedImages, sharedImagesOf } = await import("../src/generate/ranks/shared-images");

    const pictures = await readSharedImages(flags.image);

    // Before loading, as the reference does: making the model draws random numbers too.
    if (flags.seed !== undefined) mx.random.seed(flags.seed);

    const saved = flags.promptCacheFile === undefined ? null : await openSavedCache(flags);
    const opened = await openModel(saved?.model ?? flags.model, out, signal, {
      ...flags,
      draftHead: flags.mtp !== undefined,
      movesCaches: saved !== null,
    });
    const { model, draftHead, tokenizer, contextLength } = opened;
    const cache = saved?.cacheFor(opened) ?? model.makeCache({ maxSize: flags.maxKvSize });
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

    const asksStdin = !wasGiven(flags, "prompt") && flags.jsonSchema !== "-" && (await fromLead(hasPipedText));
    const readsStdin = flags.prompt === "-" || asksStdin;
    const piped = readsStdin ? await fromLead(() => pipedText(contextLength, mx.availableMemory())) : "";
    // A pipe that nobody wrote to is no prompt.
    const isAsked = readsStdin && (piped !== "" || flags.prompt === "-" || (await fromLead(isFileOnStdin)));
    const asked = isAsked ? piped : unescapePrompt(flags.prompt);
    checkPromptText(asked);
    checkPromptLength(asked.length, contextLength, mx.availableMemory());
    const images = pictures.length > 0 ? sharedImagesOf(model, pictures) : null;
    const written = {
      system: flags.systemPrompt,
      prefill: flags.prefillResponse,
      raw: flags.ignoreChatTemplate,
      templateVariables: flags.chatTemplateConfig,
      continues: saved !== null,
      rewrite: images?.written,
    };
    const prompt = await fromLead(() => encodePrompt(tokenizer, images?.placed(asked) ?? asked, written));
    checkContext(prompt.length + (saved?.tokens ?? 0), contextLength);
    const inputEmbeddings = images?.embed(prompt);
    images?.dispose();
    const { prefillStepSize } = flags;
    const settings = { prefillStepSize, kvQuantization: kvQuantization(flags), maxMemory: gigabytes(flags.maxMemory) };
    const drafts = draft ? { model: draft.model, tokens: flags.numDraftTokens } : draftsOf(flags, draftHead);
    const stepper = drafts ? new DraftStepper(model, drafts, settings) : new LoneStepper(model, settings);

    const { vocabSize: vocabularySize } = model;
    const constraint = format && (await constrain(format, { tokenizer, vocabularySize, prompt }));
    const bar = out.progress("Prompt", { unit: "tok", total: prompt.length });
    const rule = "=".repeat(10);
    if (flags.verbose) out.info(rule);
    const request = {
      prompt,
      inputEmbeddings,
      maxTokens: flags.maxTokens,
      sampler: {
        temp: flags.temp,
        topP: flags.topP,
        minP: flags.minP,
        topK: flags.topK,
        minTokensToKeep: flags.minTokensToKeep,
        xtcProbability: flags.xtcProbability,
        xtcThreshold: flags.xtcThreshold,
      },
      cache,
      constraint,
      // Thoughts are no part of a text in a form.
      takeApart: format !== null,
      onPrefill: (done: number, total: number) => (done < total ? bar.at(done, total) : bar.end()),
      signal,
    };
    const page = out.pieces("stdout");
    let text = "";
    let end: End | undefined;
    try {
      for await (const part of answer(request, { stepper, tokenizer })) {
        if (part.type === "text") {
          page.push(part.text);
          text += part.text;
        } else if (part.type === "end") end = part;
      }
    } finally {
      bar.end();
      inputEmbeddings?.dispose();
      for (const layer of cache) layer.dispose();
      model.dispose();
      draftHead?.dispose();
      draft?.model.dispose();
    }

    page.end();
    out.text("\n");
    if (end && flags.verbose) {
      out.info(rule);
      if (text === "") out.info("No text generated for this prompt");
      else for (const line of statistics(end)) out.info(line);
    }
    if (end?.complete === false) out.warn(cutWarning(end, flags.maxTokens));
    if (end) {
      const { prompt_tokens, prompt_tps, generation_tokens, generation_tps, peak_memory, finish_reason } = end;
      const figures = { prompt_tokens, prompt_tps, generation_tokens, generation_tps, peak_memory, finish_reason };
      const ending = end.complete === undefined ? {} : { complete: end.complete };
      out.result({ text, ...figures, ...(end.drafts && { drafts: end.drafts }), ...ending });
    }
    if (signal.aborted) process.exitCode = ExitCode.interrupted;
  },
});

function cutWarning({ finish_reason, generation_tokens }: End, maxTokens: number): string {
  const where = `the answer was cut after ${generation_tokens} tokens and does not fit its form to the end`;
  return finish_reason === "length" ? `${where}: --max-tokens ${maxTokens} was too few` : where;
}

function bothOnStdin(): UserError {
  return new UserError("--json-schema and --prompt cannot both come from stdin", {
    code: ExitCode.usage,
    hint: "Put one of them into a file.",
  });
}

function noPrefill(): UserError {
  return new UserError("--prefill-response does not go with a form of the answer, which begins with its first token", {
    code: ExitCode.usage,
    hint: "Leave out --prefill-response.",
  });
}

/** The three lines that mlx-lm prints, and one about drafts. */
function statistics(end: End): string[] {
  return [
    `Prompt: ${end.prompt_tokens} tokens, ${end.prompt_tps.toFixed(3)} tokens-per-sec`,
    `Generation: ${end.generation_tokens} tokens, ${end.generation_tps.toFixed(3)} tokens-per-sec`,
    `Peak memory: ${end.peak_memory.toFixed(3)} GB`,
    ...(end.drafts ? [`Drafts: ${draftLine(end.drafts)}, ${end.drafts.passes} passes`] : []),
  ];
}

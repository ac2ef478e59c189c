/** `mlxlm cache_prompt`: a prompt's KV cache, kept in a file. */
import { command } from "../src/cli/command";
import { gigabytes } from "../src/cli/flags";
import { fromLead } from "../src/cli/group";
import { kvQuantization } from "../src/cli/kv-quantization";
import { checkPromptLength, checkPromptText, pipedText } from "../src/cli/piped";
import { ExitCode } from "../src/errors";
import { isLead } from "../src/mlx/group-environment";
import { cachePromptFlags } from "./cache_prompt.flags";

export default command({
  name: "cache_prompt",
  summary: "Process a prompt once and keep its KV cache in a file",
  examples: [
    "mlxlm cache_prompt --model mlx-community/Qwen3-4B-4bit --prompt - --prompt-cache-file book < book.txt",
    'mlxlm generate --prompt-cache-file book --prompt "Who is the narrator?"',
  ],
  flags: cachePromptFlags,
  computes: true,
  ranks: true,

  async run({ flags, out, signal }) {
    checkPromptText(flags.prompt);
    // What needs the native library is loaded here, so that --help does not.
    const mx = await import("../src/mlx");
    const { openModel } = await import("../src/cli/model");
    const { checkContext, encodeOpenPrompt } = await import("../src/generate/prompt");
    const { promptCachePath, savePromptCache } = await import("../src/generate/prompt-cache-file");
    const { endingTogether, isAbortedAnywhere } = await import("../src/generate/agreed-signal");
    const { generateSteps } = await import("../src/generate/step");

    const opened = await openModel(flags.model, out, signal, { ...flags, movesCaches: true });
    const { model, tokenizer, contextLength, caches } = opened;
    caches?.check();
    const cache = model.makeCache({ maxSize: flags.maxKvSize });
    const bar = out.progress("Prompt", { unit: "tok" });
    try {
      if (flags.eosToken !== undefined) tokenizer.addEosToken(flags.eosToken);
      const limit = flags.maxKvSize === undefined ? contextLength : null;
      const text = flags.prompt === "-" ? await fromLead(() => pipedText(limit, mx.availableMemory())) : flags.prompt;
      checkPromptText(text);
      checkPromptLength(text.length, limit, mx.availableMemory());
      const prompt = await fromLead(() => encodeOpenPrompt(tokenizer, text));
      checkContext(prompt.length, limit);
      const began = performance.now();
      const steps = endingTogether(signal, (signal) =>
        generateSteps(model, prompt, {
          maxTokens: 0,
          cache,
          prefillStepSize: flags.prefillStepSize,
          kvQuantization: kvQuantization(flags),
          maxMemory: gigabytes(flags.maxMemory),
          onPrefill: (done, total) => bar.at(done, total),
          signal,
        }),
      );
      for await (const _ of steps);
      bar.end();
      if (isAbortedAnywhere(signal)) {
        process.exitCode = ExitCode.interrupted;
        return;
      }
      mx.eval(cache.map(({ state }) => state));
      const speed = prompt.length / ((performance.now() - began) / 1000);
      const peak = mx.peakMemory() / 1e9;
      out.info(`Processed ${String(prompt.length).padStart(6)} tokens (${speed.toFixed(2)} tok/s)`);
      out.info(`Peak memory: ${peak.toFixed(3)} GB`);
      out.info("Saving...");
      const file = promptCachePath(flags.promptCacheFile);
      const whole = caches?.gathered(cache) ?? cache;
      const bytes = whole.reduce((sum, { nbytes }) => sum + nbytes, 0);
      const metadata = {
        model: flags.model,
        tokenizer_config: JSON.stringify({
          trust_remote_code: flags.trustRemoteCode,
          ...(flags.eosToken === undefined ? {} : { eos_token: flags.eosToken }),
        }),
      };
      if (isLead()) await savePromptCache(file, whole, metadata);
      if (whole !== cache) for (const layer of whole) layer.dispose();
      out.result({ file, prompt_tokens: prompt.length, prompt_tps: speed, peak_memory: peak, cache_bytes: bytes });
    } finally {
      bar.end();
      for (const layer of cache) layer.dispose();
      model.dispose();
    }
  },
});

/** `mlxlm server`: a model, or many, over HTTP. */
import { version } from "../package.json";
import { command } from "../src/cli/command";
import { checkDrafts, draftsOf } from "../src/cli/drafts";
import { gigabytes } from "../src/cli/flags";
import { kvQuantization } from "../src/cli/kv-quantization";
import { environment } from "../src/environment";
import { isLead } from "../src/mlx/group-environment";
import type { DraftHead } from "../src/models";
import { readServerFlags } from "../src/serve/flags";
import type { RunOptions } from "../src/serve/run";
import { serverFlags } from "./server.flags";

export default command({
  name: "server",
  summary: "Answer over HTTP, as OpenAI's, Anthropic's and Ollama's APIs do",
  examples: [
    "mlxlm server demo",
    "mlxlm server mlx-community/Qwen3-4B-4bit --port 8080",
    "mlxlm server --host 0.0.0.0 --api-key SECRET --allowed-models mlx-community/Qwen3-4B-4bit,./my-model",
  ],
  flags: serverFlags,
  computes: true,
  ranks: true,

  async run({ flags, out, signal }) {
    checkDrafts(flags);
    const drafts = flags.draft !== undefined || flags.mtp !== undefined;
    const read = readServerFlags(flags, environment("MLXLM_API_KEY"));
    const options = {
      ...read,
      model: flags.model,
      adapterPath: flags.adapterPath,
      chatTemplate: flags.chatTemplate || undefined,
      draftModel: flags.draftModel,
      pipeline: flags.pipeline,
      draftHead: flags.mtp !== undefined,
      promptCacheDir: flags.promptCacheDir,
      maxMemory: gigabytes(flags.maxMemory),
      address: { host: flags.host, port: flags.port },
      defaults: {
        ...{ temp: flags.temp, topP: flags.topP, topK: flags.topK, minP: flags.minP, maxTokens: flags.maxTokens },
        templateVariables: flags.chatTemplateArgs ?? {},
      },
      settings: {
        ...{ decodeConcurrency: flags.decodeConcurrency, promptConcurrency: flags.promptConcurrency },
        ...{ prefillStepSize: flags.prefillStepSize, maxQueue: flags.maxQueue, numDraftTokens: flags.numDraftTokens },
        ...{ promptCacheSize: flags.promptCacheSize, promptCacheBytes: read.promptCacheBytes },
        kvQuantization: kvQuantization(flags),
        ...(drafts && { ownDrafts: (head: DraftHead | undefined) => draftsOf(flags, head) }),
      },
      logLevel: flags.logLevel ?? "INFO",
      version,
    } satisfies RunOptions;
    if (!isLead()) {
      const { followServer } = await import("../src/serve/follow");
      return await followServer(options, (line) => out.warn(line));
    }
    const { runServer } = await import("../src/serve/run");
    await runServer(options, {
      log: (line) => out.info(line),
      warn: (line) => out.warn(line),
      onListening: (url, model) => {
        out.info(`mlxlm server: ${url}  (${model})`);
        out.info(`OpenAI ${url}/v1 · Anthropic ${url} · Ollama ${url} · Ctrl-C ends it`);
        out.event({ type: "listening", url, model });
      },
      signal,
    });
  },
});

/** `mlxlm server`: a model, or many, over HTTP. */
import { version } from "../package.json";
import { command } from "../src/cli/command";
import { checkDrafts, draftsOf } from "../src/cli/drafts";
import { gigabytes } from "../src/cli/flags";
import { kvQuantization } from "../src/cli/kv-quantization";
import { environment } from "../src/environment";
import { ExitCode, UserError } from "../src/errors";
import { isLaunched, isLead } from "../src/mlx/group-environment";
import { readServerFlags } from "../src/serve/flags";
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
    if (isLaunched()) checkRanks(flags);
    if (!isLead()) {
      const { openModel } = await import("../src/cli/model");
      const { follow } = await import("../src/generate/ranks-stepper");
      const { demoName } = await import("../src/demo/folder");
      const { adapterPath, pipeline, prefillStepSize } = flags;
      const open = async () => (await openModel(flags.model ?? demoName, out, signal, { adapterPath, pipeline })).model;
      return await follow(open, { prefillStepSize, kvQuantization: kvQuantization(flags) });
    }
    const { runServer } = await import("../src/serve/run");
    await runServer(
      {
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
          // The other ranks keep no prompts.
          ...{ promptCacheSize: isLaunched() ? 0 : flags.promptCacheSize, promptCacheBytes: read.promptCacheBytes },
          kvQuantization: kvQuantization(flags),
          ...(drafts && { ownDrafts: (head) => draftsOf(flags, head) }),
        },
        logLevel: flags.logLevel ?? "INFO",
        version,
      },
      {
        log: (line) => out.info(line),
        warn: (line) => out.warn(line),
        onListening: (url, model) => {
          out.info(`mlxlm server: ${url}  (${model})`);
          out.info(`OpenAI ${url}/v1 · Anthropic ${url} · Ollama ${url} · Ctrl-C ends it`);
          out.event({ type: "listening", url, model });
        },
        signal,
      },
    );
  },
});

/** @throws UserError for what one process can do only */
function checkRanks(
  flags: Partial<Record<"allowedModels" | "adapters" | "draftModel" | "draft" | "mtp", unknown>>,
): void {
  const names = {
    allowedModels: "allowed-models",
    adapters: "adapters",
    draftModel: "draft-model",
    draft: "draft",
    mtp: "mtp",
  };
  for (const [flag, name] of Object.entries(names)) {
    if (flags[flag as keyof typeof names] === undefined) continue;
    throw new UserError(`--${name} does not go with several ranks`, {
      code: ExitCode.usage,
      hint: "Leave it out, or start the server without mlxlm launch.",
    });
  }
}

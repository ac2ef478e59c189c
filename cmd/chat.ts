/** `mlxlm chat`: a conversation with a model. */
import { answerFormat } from "../src/cli/answer-format";
import { command } from "../src/cli/command";
import { checkDrafts, draftsOf } from "../src/cli/drafts";
import { gigabytes } from "../src/cli/flags";
import { ExitCode, UserError } from "../src/errors";
import { chatFlags } from "./chat.flags";

export default command({
  name: "chat",
  summary: "Chat with a model",
  examples: [
    "mlxlm chat demo",
    'mlxlm chat --model mlx-community/Qwen3-4B-4bit --system-prompt "Answer in one sentence."',
    "mlxlm chat --model demo < questions.txt > answers.txt",
  ],
  flags: chatFlags,
  computes: true,
  ranks: true,

  async run({ flags, out, signal }) {
    const { checkSettings } = await import("../src/cli/chat/settings");
    checkSettings(flags);
    checkDrafts(flags);
    const format = await answerFormat(flags);
    // What needs the native library is loaded here, so that --help does not.
    const mx = await import("../src/mlx");
    const { demoFolder, demoName } = await import("../src/demo/folder");
    const { openModel } = await import("../src/cli/model");
    const { ChatAnswerer } = await import("../src/cli/chat/answerer");
    const { openSharedInput } = await import("../src/cli/chat/open-input");
    const { ChatSession } = await import("../src/cli/chat/session");
    const { readSharedImages, sharedImagesOf } = await import("../src/generate/ranks/shared-images");

    const pictures = await readSharedImages(flags.image);

    // Before loading, as the reference does: making the model draws random numbers too.
    mx.random.seed(flags.seed);

    /** A model with its side of the conversation. */
    const open = async (named: string | undefined, adapterPath?: string) => {
      const draftHead = flags.mtp !== undefined;
      const loaded = await openModel(named, out, signal, { adapterPath, draftHead, pipeline: flags.pipeline });
      const { model, tokenizer, contextLength, folder } = loaded;
      const name = named ?? (folder === demoFolder() ? demoName : folder);
      const dispose = () => {
        model.dispose();
        loaded.draftHead?.dispose();
      };
      try {
        const drafts = draftsOf(flags, loaded.draftHead) ?? undefined;
        if (!tokenizer.hasChatTemplate) {
          throw new UserError(`${name} has no chat template`, {
            code: ExitCode.usage,
            hint: "Take an instruction-tuned model, or continue plain text with mlxlm generate.",
          });
        }
        const images = pictures.length > 0 ? sharedImagesOf(model, pictures) : null;
        const limits = { ...flags, maxMemory: gigabytes(flags.maxMemory), contextLength, drafts, format, images };
        const answerer = new ChatAnswerer(model, tokenizer, limits);
        const close = () => {
          answerer.dispose();
          dispose();
        };
        return { answerer, model: name, close };
      } catch (error) {
        dispose();
        throw error;
      }
    };
    let opened = await open(flags.model, flags.adapterPath);
    try {
      const { temp, topP, minP, topK, xtcProbability, xtcThreshold, seed, maxTokens } = flags;
      const { systemPrompt: system = null } = flags;
      const rows = [
        ["model", opened.model],
        ["max tokens", maxTokens === -1 ? "no limit" : maxTokens.toLocaleString("en")],
        ...(system === null ? [] : [["system", system]]),
      ] as [string, string][];
      const session = new ChatSession({
        ...(await openSharedInput(out, rows, signal)),
        ...opened,
        settings: { temp, topP, minP, topK, xtcProbability, xtcThreshold, seed, maxTokens, thinking: undefined },
        system,
        async open(name) {
          const next = await open(name);
          opened.close();
          opened = next;
          return next;
        },
        out,
        signal,
      });
      await session.run();
    } finally {
      opened.close();
    }
  },
});

/** `mlxlm chat`: a conversation with a model. */
import { command } from "../src/cli/command";
import { gigabytes } from "../src/cli/flags";
import { ExitCode, UserError } from "../src/errors";
import { chatFlags } from "./chat.flags";

export default command({
  name: "chat",
  summary: "Chat with a model",
  examples: [
    "mlxlm chat --model demo",
    'mlxlm chat --model mlx-community/Qwen3-4B-4bit --system-prompt "Answer in one sentence."',
    "mlxlm chat --model demo < questions.txt > answers.txt",
  ],
  flags: chatFlags,

  async run({ flags, out, signal }) {
    const { checkSettings } = await import("../src/cli/chat/settings");
    checkSettings(flags);
    // What needs the native library is loaded here, so that --help does not.
    const mx = await import("../src/mlx");
    const { demoFolder, demoName } = await import("../src/demo/folder");
    const { openModel } = await import("../src/cli/model");
    const { ChatAnswerer } = await import("../src/cli/chat/answerer");
    const { openInput } = await import("../src/cli/chat/open-input");
    const { ChatSession } = await import("../src/cli/chat/session");

    if (flags.device) mx.setDefaultDevice(flags.device);
    // Before loading, as the reference does: making the model draws random numbers too.
    mx.random.seed(flags.seed);

    const { model, tokenizer, contextLength, folder } = await openModel(flags.model, out, signal, flags);
    const name = flags.model ?? (folder === demoFolder() ? demoName : folder);
    const answerer = new ChatAnswerer(model, tokenizer, {
      ...flags,
      maxMemory: gigabytes(flags.maxMemory),
      contextLength,
    });
    try {
      if (!tokenizer.hasChatTemplate) {
        throw new UserError(`${name} has no chat template`, {
          code: ExitCode.usage,
          hint: "Take an instruction-tuned model, or continue plain text with mlxlm generate.",
        });
      }
      const { temp, topP, xtcProbability, xtcThreshold, seed, maxTokens, systemPrompt: system = null } = flags;
      const rows = [
        ["model", name],
        ["max tokens", maxTokens.toLocaleString("en")],
        ...(system === null ? [] : [["system", system]]),
      ] as [string, string][];
      const session = new ChatSession({
        ...openInput(out, rows, signal),
        answerer,
        settings: { temp, topP, xtcProbability, xtcThreshold, seed, maxTokens, thinking: undefined },
        system,
        model: name,
        out,
        signal,
      });
      await session.run();
    } finally {
      answerer.forget();
      model.dispose();
    }
  },
});

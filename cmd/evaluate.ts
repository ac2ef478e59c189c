/** `mlxlm evaluate`: tasks of lm-evaluation-harness, without Python. */
import { command } from "../src/cli/command";
import { ExitCode, UserError } from "../src/errors";
import type { AnswerAll } from "../src/evaluate/run-tasks";
import { isLaunched, isLead } from "../src/mlx/group-environment";
import { evaluateFlags } from "./evaluate.flags";

export default command({
  name: "evaluate",
  summary: "Measure how good a model is, by tasks of lm-evaluation-harness",
  examples: [
    "mlxlm evaluate --model mlx-community/Qwen3-4B-4bit --tasks arc_easy hellaswag --limit 200",
    "mlxlm evaluate --model ./my-model --tasks mmlu --tasks-dir ~/lm-evaluation-harness --json",
    "mlxlm evaluate --model demo --tasks my_task --include-path ./my-tasks --log-samples",
  ],
  flags: evaluateFlags,
  computes: true,
  ranks: true,

  async run({ flags, out, signal }) {
    const { model: name, tasks: names = [], seed, limit, numShots, batchSize } = flags;
    if (names.length === 0) {
      throw new UserError("evaluate needs tasks", { code: ExitCode.usage, hint: "For example: --tasks arc_easy" });
    }
    if (flags.applyChatTemplate && flags.noApplyChatTemplate) {
      throw new UserError("--apply-chat-template and --no-apply-chat-template exclude each other", {
        code: ExitCode.usage,
        hint: "Leave one out.",
      });
    }
    const { allTasks, findTasks } = await import("../src/evaluate/tasks/find-tasks");
    if (names.length === 1 && names[0] === "list") {
      const known = [...(await allTasks(flags)).entries.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
      out.text(known.map((entry) => `${entry.name}\n`).join(""));
      out.result({ tasks: known.map(({ kind, name }) => ({ name, kind })) });
      return;
    }
    const { PythonRandom } = await import("../src/mersenne");
    const { openTasks, runTasks } = await import("../src/evaluate/run-tasks");
    const { resultPath, writeResults } = await import("../src/evaluate/result-files");
    const selection = await findTasks(names, flags);
    const path = await resultPath({ outputDir: flags.outputDir, model: name, tasks: names, numShots });
    const downloading = out.progress("Downloading datasets", { unit: "bytes" });
    const tasks = await openTasks(selection, {
      random: new PythonRandom(seed),
      fewshotSeed: seed,
      numFewshot: numShots,
      datasets: new Map(),
      onDownload: (_, done, total) => downloading.at(done, total),
      signal,
    }).finally(() => downloading.end());

    const mx = await import("../src/mlx");
    const { openModel } = await import("../src/cli/model");
    const { makeSampler } = await import("../src/sample");
    const { Answerer } = await import("../src/evaluate/answers");
    const { answerAcrossRanks } = await import("../src/evaluate/across-ranks");
    const { AnswerCache } = await import("../src/evaluate/answer-cache");
    const { filesMark } = await import("../src/files-mark");
    const { renderChats } = await import("../src/evaluate/chats");
    const { resultsTable } = await import("../src/evaluate/tasks/results-table");
    mx.random.seed(seed);
    const { model, tokenizer, folder } = await openModel(name, out, signal, { isWhole: true });
    const group = isLaunched() ? mx.distributed.init({ strict: true }) : null;
    const usesChatTemplate = flags.applyChatTemplate || (tokenizer.hasChatTemplate && !flags.noApplyChatTemplate);
    const { temp, topP, topK, maxTokens, chatTemplateArgs } = flags;
    const conditions = [await filesMark(folder), usesChatTemplate, maxTokens, temp > 0 && [temp, topP, topK, seed]];
    const cache = new AnswerCache(
      `${path}.answers${isLead() ? "" : `-${group!.rank}`}.jsonl`,
      JSON.stringify(conditions),
    );
    const bar = out.progress("Evaluating", { unit: "it" });
    let [done, total] = [0, 0];
    const onProgress = (answered: number, all: number) => {
      [done, total] = [answered, all];
      bar.at(answered, all);
    };
    const sampler = makeSampler({ temp, topP, topK });
    const options = { batchSize, maxTokens, usesChatTemplate, sampler, cache, onProgress, signal };
    const answerer = new Answerer(model, tokenizer, options);
    const answerOwn: AnswerAll = (requests) => answerer.answer(requests);
    try {
      const found =
        tasks &&
        (await runTasks(tasks, selection, group ? answerAcrossRanks(group, answerOwn) : answerOwn, {
          limit,
          renderChat: usesChatTemplate ? renderChats(tokenizer, chatTemplateArgs) : undefined,
          asMultiturn: flags.fewshotAsMultiturn,
          keepsSamples: flags.logSamples,
          signal,
        }));
      bar.end();
      if (!found) {
        const kept = done > 0 ? ` ${done} of ${total} requests are answered; the same command goes on from there.` : "";
        out.info(`Interrupted.${kept}`);
        process.exitCode = ExitCode.interrupted;
        return;
      }
      const paths = isLead() ? await writeResults(path, found) : [];
      out.text(`Results:\n${resultsTable(found)}`);
      if (found.groups) out.text(`\n${resultsTable(found, "groups")}`);
      for (const file of paths) out.info(`Written: ${file}`);
      const config = { model: name, batch_size: batchSize, limit: limit ?? null, num_fewshot: numShots ?? null, seed };
      out.result({ ...found, config: { ...config, apply_chat_template: usesChatTemplate } });
      cache.remove();
    } finally {
      bar.end();
      cache.close();
      model.dispose();
    }
  },
});

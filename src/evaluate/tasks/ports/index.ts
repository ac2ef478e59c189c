/** The harness's Python functions that are written here too, by module and name. */
import { ExitCode, UserError } from "../../../errors";
import type { PythonFunction } from "../task-yaml";
import type { Port, PortModule } from "./port";

/** Modules by the end of their path in the harness, without `.py`; null: one of a like name whose functions differ. */
const modules: Record<string, (() => Promise<PortModule>) | null> = {
  "hellaswag/utils": async () => (await import("./continuations")).hellaswag,
  "winogrande/preprocess_winogrande": async () => (await import("./continuations")).winogrande,
  "xwinograd/utils": async () => (await import("./continuations")).winogrande,
  "copa/utils": async () => (await import("./continuations")).copa,
  "xcopa/utils": async () => (await import("./continuations")).xcopa,
  "mnli/utils": async () => (await import("./questions")).mnli,
  "wsc/preprocess_wsc": async () => (await import("./questions")).wsc,
  "race/preprocess_race": async () => (await import("./questions")).race,
  "logiqa/utils_logiqa": async () => (await import("./questions")).logiqa,
  "medmcqa/utils_medmcqa": async () => (await import("./questions")).medmcqa,
  "medqa/preprocess_medqa": async () => (await import("./questions")).medqa,
  "pubmedqa/preprocess_pubmedqa": async () => (await import("./questions")).pubmedqa,
  "mathqa/utils": async () => (await import("./questions")).mathqa,
  "arithmetic/utils": async () => (await import("./questions")).arithmetic,
  "leaderboard/musr/utils": async () => (await import("./questions")).musr,
  "mmlu_pro/utils": async () => (await import("./mmlu-pro")).mmluPro,
  "leaderboard/mmlu_pro/utils": async () => (await import("./mmlu-pro")).leaderboardMmluPro,
  "llama3/instruct/mmlu_pro/utils": null,
  "gpqa/zeroshot/utils": async () => (await import("./gpqa")).gpqaZeroshot,
  "gpqa/n_shot/utils": async () => (await import("./gpqa")).gpqaNShot,
  "gpqa/cot_zeroshot/utils": async () => (await import("./gpqa")).gpqaGenerative,
  "gpqa/cot_n_shot/utils": async () => (await import("./gpqa")).gpqaGenerative,
  "gpqa/generative/utils": async () => (await import("./gpqa")).gpqaGenerative,
  "leaderboard/gpqa/utils": async () => (await import("./gpqa")).leaderboardGpqa,
  "truthfulqa/utils": async () => (await import("./truthfulqa")).truthfulqa,
  "wikitext/preprocess_wikitext": async () => (await import("./wikitext")).wikitext,
  "c4/preprocess_c4": async () => (await import("./wikitext")).c4,
};

/** `../utils.f` of `/tasks/a/b` → `/tasks/a/utils` and `f` */
function partsOf({ name, folder }: PythonFunction): { module: string; name: string } {
  const dot = name.lastIndexOf(".");
  const path = new URL(`${name.slice(0, dot).replaceAll(".", "/")}`, `file://${folder}/`).pathname;
  return { module: decodeURIComponent(path), name: name.slice(dot + 1) };
}

/**
 * The function that a task refers to.
 * @throws UserError where it is not among those that are written here
 */
export async function portOf(reference: PythonFunction, owner: string): Promise<Port> {
  const { module, name } = partsOf(reference);
  const ends = Object.keys(modules).filter((end) => module.endsWith(`/${end}`));
  const [longest] = ends.sort((a, b) => b.length - a.length);
  const ports = longest === undefined ? undefined : await modules[longest]?.();
  const port = ports && Object.hasOwn(ports, name) ? ports[name] : undefined;
  if (port) return port;
  throw new UserError(`${owner} is ${reference}, a function in Python, which mlxlm cannot run`, {
    code: ExitCode.notFound,
    hint: "Take a task without Python, or write this part as a template.",
  });
}

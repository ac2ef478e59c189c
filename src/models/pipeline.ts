/** A model whose layers are spread over the processes of a group. */
import { ExitCode, UserError } from "../errors";
import * as mx from "../mlx";
import { Decoder, Residual, Stage, withoutMessages } from "../nn";
import type { LanguageModel } from "./language-model";

/** The trunk that a model's layers are in; null where they do more than pass hidden states on. */
function trunkOf(model: LanguageModel): Decoder | null {
  const { layers } = model;
  for (const [, module] of model.namedModules()) {
    if (module instanceof Decoder && module.layers.length === layers.length && module.layers[0] === layers[0]) {
      return module.isUniform && goesThrough(model, module) ? module : null;
    }
  }
  return null;
}

/**
 * Whether the model has the trunk run its layers, and those hand on hidden states alone. Some models run them by themselves,
 * and some layers have streams of their own.
 */
function goesThrough(model: LanguageModel, trunk: Decoder): boolean {
  let runs = 0;
  let isPlain = true;
  trunk.stream = (...args) => {
    runs++;
    const out = Decoder.prototype.stream.apply(trunk, args);
    isPlain &&= out.constructor === Residual;
    return out;
  };
  try {
    mx.scope(() => withoutMessages(() => void model.forward(mx.zeros([1, 1], "uint32"))));
  } finally {
    Reflect.deleteProperty(trunk, "stream");
  }
  return runs === 1 && isPlain;
}

/** @throws UserError for a model whose layers cannot be spread, or that has fewer layers than there are processes */
function spreadable(model: LanguageModel, group: mx.distributed.Group): Decoder {
  const trunk = trunkOf(model);
  const refused = (problem: string) =>
    new UserError(`the model's layers cannot be spread over ${group.size} ranks: ${problem}`, {
      code: ExitCode.usage,
      hint: "Leave out --pipeline: each layer is divided among the ranks then.",
    });
  if (!trunk) throw refused("they share more than hidden states");
  if (trunk.layers.length < group.size) throw refused(`there are ${trunk.layers.length}`);
  return trunk;
}

/**
 * Leaves this process's layers; embedding, last norm and head stay on all. All of the group must call it.
 * @throws UserError for a model whose layers cannot be spread, or that has fewer layers than there are processes
 */
export function pipelineModel(model: LanguageModel, group: mx.distributed.Group): void {
  if (group.size > 1) spreadable(model, group).takeStage(new Stage(group));
}

/** Which of a model's layers this process has, and how many there are. @throws UserError as `pipelineModel` */
export function stageOf(model: LanguageModel, group: mx.distributed.Group) {
  const { length: count } = spreadable(model, group).layers;
  const [start, end] = new Stage(group).layers(count);
  return { start, end, count };
}

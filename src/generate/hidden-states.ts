/** What a language model makes of a text ahead of its head. */
import { ExitCode, UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import type { Module } from "../nn";

type Head = Module & { forward: (x: Tensor) => Tensor; asLinear?: (x: Tensor) => Tensor };

/**
 * Token ids (T) → what the model's head would get, (1, T, D), evaluated. The head itself is left out.
 * @throws UserError for a model whose states cannot be read
 */
export function hiddenStates(model: LanguageModel, tokens: readonly number[]): Tensor {
  let states: Tensor | null = null;
  const take = (x: Tensor) => {
    states ??= x;
    return x;
  };
  const restores: (() => void)[] = [];
  for (const [name, module] of model.namedModules()) {
    const head = module as Head;
    const methods = [...(/(^|\.)lm_head$/.test(name) ? ["forward"] : []), ...(head.asLinear ? ["asLinear"] : [])];
    for (const method of methods as ("forward" | "asLinear")[]) {
      head[method] = take;
      restores.push(() => void Reflect.deleteProperty(head, method));
    }
  }
  try {
    mx.scope(() => {
      model.forward(mx.array(tokens, "uint32").reshape(1, -1));
      return states;
    });
  } finally {
    for (const restore of restores) restore();
  }
  if (states) {
    mx.eval(states);
    return states;
  }
  throw new UserError("this model's hidden states cannot be read", { code: ExitCode.usage });
}

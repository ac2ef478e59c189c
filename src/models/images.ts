/** Images beside a prompt, as a model takes them. */
import { UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";

export interface ImageForm {
  /** Stands for an image in a prompt. */
  placeholder: string;
  /** The size that an image of this size (pixels) is stretched to, and how many tokens it takes. */
  fit(width: number, height: number): { width: number; height: number; tokens: number };
  /** What stands in the prompt in the placeholder's place. */
  written(tokens: number): string;
  /** What colours from 0 to 1 are less, and divided by: red, green, blue. */
  mean: readonly [number, number, number];
  deviation: readonly [number, number, number];
}

/** What a model that sees has besides. Of several processes one sees for all: none of its layers has a `shard`. */
export interface SeeingModel {
  form: ImageForm;
  /** Images (3, H, W) → a row for each of their tokens, one image behind the other: (R, D) */
  see(images: readonly Tensor[]): Tensor;
  /**
   * Embeddings (T, D) of a prompt: of its tokens, and of the images' rows (R, D) in the places that are theirs, in order.
   * @throws UserError where there are other numbers of places and of rows
   */
  embed(tokens: readonly number[], rows: Tensor): Tensor;
}

/**
 * Embeddings (T, D) with rows (R, D) in the places of one token, in order.
 * @throws UserError where the token is there more or less often
 */
export function replaceRows(embedded: Tensor, tokens: readonly number[], token: number, rows: Tensor): Tensor {
  const places = tokens.reduce((count, one) => count + Number(one === token), 0);
  if (places !== rows.dim(0)) {
    throw new UserError(`the images take ${rows.dim(0)} tokens, but the prompt has ${places} with the id ${token}`, {
      hint: "Check that tokenizer and config.json belong to the same model.",
    });
  }
  let next = 0;
  const indices = tokens.map((one, at) => (one === token ? tokens.length + next++ : at));
  return mx.concatenate([embedded, rows.astype(embedded.dtype)]).take(mx.array(indices, "uint32"), 0);
}

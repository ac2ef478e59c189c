/** Images beside a prompt: from their files to the embeddings that a model reads. */
import { ExitCode, UserError } from "../errors";
import { readImage } from "../images/decode";
import type { Pixels } from "../images/pixels";
import { resample } from "../images/resample";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { LanguageModel, SeeingModel } from "../models";

/** @throws UserError for a file that is not there, or no image that can be read */
export async function readImages(paths: readonly string[]): Promise<Pixels[]> {
  const images: Pixels[] = [];
  for (const path of paths) images.push(await readImage(path));
  return images;
}

export interface PromptImages {
  /** Stands for an image in a prompt. */
  readonly placeholder: string;
  /** What the user asks, with places for the images: the text's own, or all ahead of it. */
  placed(text: string): string;
  /** A whole prompt with what stands for the images in their places. @throws UserError where it has more or less places */
  written(text: string): string;
  /** Embeddings (T, D) of the prompt's tokens, evaluated. The caller disposes of them. */
  embed(tokens: readonly number[]): Tensor;
  dispose(): void;
}

/** @throws UserError where the model takes no images */
export function imagesOf(model: LanguageModel, images: readonly Pixels[]): PromptImages {
  const seeing = model.images;
  if (!seeing) {
    throw new UserError("this model takes no images", {
      code: ExitCode.usage,
      hint: "Leave out --image, or take a model that sees, with its vision_config.",
    });
  }
  const { form } = seeing;
  const fitted = images.map(({ width, height }) => form.fit(width, height));
  /** What the model sees, computed once. */
  let rows: Tensor | null = null;
  const see = () => {
    const values = images.map((image, i) => valuesOf(resample(image, fitted[i]!.width, fitted[i]!.height), form));
    return mx.keep(seeing.see(values));
  };
  return {
    placeholder: form.placeholder,
    placed: (text) => (text.includes(form.placeholder) ? text : form.placeholder.repeat(images.length) + text),
    written(text) {
      const parts = text.split(form.placeholder);
      if (parts.length - 1 !== images.length) {
        const places = `${parts.length - 1} places for images (${form.placeholder})`;
        throw new UserError(`the prompt has ${places}, but there are ${images.length}`, {
          code: ExitCode.usage,
          hint: "Give one place for each image, or none: then they stand ahead of the prompt.",
        });
      }
      return parts.reduce((whole, part, i) => `${whole}${form.written(fitted[i - 1]!.tokens)}${part}`);
    },
    embed(tokens) {
      rows ??= mx.scope(see);
      const seen = rows;
      const embeddings = mx.scope(() => seeing.embed(tokens, seen));
      mx.eval(embeddings);
      return embeddings;
    },
    dispose() {
      if (rows) mx.release(rows);
      rows = null;
    },
  };
}

/** As a model takes them: (3, height, width), float32. */
function valuesOf({ width, height, data }: Pixels, { mean, deviation }: SeeingModel["form"]): Tensor {
  const colours = mx.array(data, "uint8", [height, width, 3]).astype("float32").divide(255);
  return colours.subtract(mx.array(mean, "float32")).divide(mx.array(deviation, "float32")).transpose(2, 0, 1);
}

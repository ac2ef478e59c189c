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
  /** What the user asks, with a place for each image: those of the text, else ahead of it. @throws UserError for other numbers */
  placed(text: string): string;
  /** The prompt's text with what stands for the images in these places. */
  written(text: string): string;
  /** Embeddings (T, D) of the prompt's tokens, evaluated. The caller disposes of them. */
  embed(tokens: readonly number[]): Tensor;
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
  const { form, embed } = seeing;
  const fitted = images.map(({ width, height }) => form.fit(width, height));
  const places = (text: string) => text.split(form.placeholder).length - 1;
  return {
    placed(text) {
      const count = places(text);
      if (count === 0) return form.placeholder.repeat(images.length) + text;
      if (count === images.length) return text;
      throw new UserError(
        `the prompt has ${count} places for images (${form.placeholder}), but there are ${images.length}`,
        {
          code: ExitCode.usage,
          hint: "Give one place for each image, or none: then they stand ahead of the prompt.",
        },
      );
    },
    written(text) {
      const parts = text.split(form.placeholder);
      return parts.reduce((whole, part, i) => `${whole}${form.written(fitted[i - 1]!.tokens)}${part}`);
    },
    embed(tokens) {
      const embeddings = mx.scope(() =>
        embed(
          tokens,
          images.map((image, i) => values(resample(image, fitted[i]!.width, fitted[i]!.height), form)),
        ),
      );
      mx.eval(embeddings);
      return embeddings;
    },
  };
}

/** As a model takes them: (3, height, width), float32. */
function values({ width, height, data }: Pixels, { mean, deviation }: SeeingModel["form"]): Tensor {
  const colours = mx.array(data, "uint8", [height, width, 3]).astype("float32").divide(255);
  return colours.subtract(mx.array(mean, "float32")).divide(mx.array(deviation, "float32")).transpose(2, 0, 1);
}

/** Images beside a prompt of several processes: the first reads them and sees, and all go on with what it has seen. */
import { UserError } from "../../errors";
import type { Pixels } from "../../images/pixels";
import type { Tensor } from "../../mlx";
import { isLaunched, isLead } from "../../mlx/group-environment";
import { broadcastTensor, type ToldTensor } from "../../mlx/group-messages";
import type { LanguageModel } from "../../models";
import { imagesOf, type PromptImages, readImages } from "../images";
import { onAll } from "./on-all";
import { everyone, told } from "./orders";

/** Of several processes only the first needs the files; the others know how large the images are. @throws UserError as `readImages`, on all */
export async function readSharedImages(paths: readonly string[]): Promise<Pixels[]> {
  if (!isLaunched() || paths.length === 0) return await readImages(paths);
  const read = await onAll(everyone(), () => (isLead() ? readImages(paths) : []));
  const sizes = told(read.map(({ width, height }) => ({ width, height })));
  return isLead() ? read : sizes.map((size) => ({ ...size, data: new Uint8Array(0) }));
}

/** Images as `readSharedImages` gives them, for a prompt. All processes must call what they give equally often. @throws UserError as `imagesOf` */
export function sharedImagesOf(model: LanguageModel, images: readonly Pixels[]): PromptImages {
  const own = imagesOf(model, images);
  return isLaunched() ? { ...own, embed: (tokens) => seenByLead(() => own.embed(tokens)) } : own;
}

function seenByLead(see: () => Tensor): Tensor {
  let seen: Tensor | null = null;
  let form: ToldTensor | { message: string; hint?: string } | null = null;
  if (isLead()) {
    try {
      seen = see();
      form = { shape: seen.shape, dtype: seen.dtype };
    } catch (error) {
      form = { message: (error as Error).message, hint: error instanceof UserError ? error.hint : undefined };
    }
  }
  const agreed = told(form)!;
  if ("message" in agreed) throw new UserError(agreed.message, { hint: agreed.hint });
  const all = broadcastTensor(everyone(), seen, agreed);
  seen?.dispose();
  return all;
}

/** From an image's file to its pixels. Bun's codecs read it: libjpeg-turbo, libspng, libwebp; GIF's first picture, BMP. */
import { readFile } from "node:fs/promises";
import { decode } from "fast-png";
import { ExitCode, UserError } from "../errors";
import { inputFile } from "../input-file";
import { systemError } from "../system-errors";
import type { Pixels } from "./pixels";

/** More pixels than any camera's: a small file may claim to have more, and would take the memory of them. */
const mostPixels = 2 ** 28;

/** @throws UserError for a file that is not there, or no image that can be read */
export async function readImage(path: string): Promise<Pixels> {
  if ((await inputFile(path)) === null) {
    throw new UserError(`there is no image ${path}`, { code: ExitCode.notFound, hint: "Check the path." });
  }
  const bytes = await readFile(path).catch((error) => {
    throw systemError(error, `the image ${path} cannot be read`) ?? error;
  });
  return decodeImage(bytes, path);
}

/**
 * Transparency is left out; the picture is turned as its camera says.
 * @param name what errors call it
 * @throws UserError for what is no image, or a damaged one
 */
export async function decodeImage(
  bytes: Uint8Array,
  name: string,
  { maxPixels = mostPixels }: { maxPixels?: number } = {},
): Promise<Pixels> {
  if (bytes.length === 0) throw broken(name, "is empty");
  if (isCutJpeg(bytes)) throw broken(name, "is cut: its end is missing");
  try {
    // Bun gives no pixels, but a PNG of them.
    const image = new Bun.Image(bytes, { maxPixels });
    return withoutAlpha(decode(await image.png({ compressionLevel: 0 }).bytes()));
  } catch (error) {
    throw explained(error, name, maxPixels);
  }
}

/** The decoder would fill what is missing with grey. */
function isCutJpeg(bytes: Uint8Array): boolean {
  const [start, end] = [Buffer.from([0xff, 0xd8]), Buffer.from([0xff, 0xd9])];
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  return file.subarray(0, 2).equals(start) && !file.includes(end);
}

function withoutAlpha({ width, height, channels, data }: ReturnType<typeof decode>): Pixels {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += channels, to += 3) {
    rgb[to] = data[from]!;
    rgb[to + 1] = data[from + 1]!;
    rgb[to + 2] = data[from + 2]!;
  }
  return { width, height, data: rgb };
}

const broken = (name: string, problem: string) =>
  new UserError(`the image ${name} ${problem}`, { hint: "Take another file." });

function explained(error: unknown, name: string, maxPixels: number): unknown {
  switch ((error as { code?: unknown }).code) {
    case "ERR_IMAGE_UNKNOWN_FORMAT":
      return new UserError(`${name} is no image that can be read`, { hint: "Take a PNG, JPEG, WebP, GIF or BMP." });
    case "ERR_IMAGE_FORMAT_UNSUPPORTED":
      return new UserError(`the image ${name} is in a format that this machine has no decoder for`, {
        code: ExitCode.notFound,
        hint: "Take a PNG, JPEG, WebP, GIF or BMP.",
      });
    case "ERR_IMAGE_TOO_MANY_PIXELS":
      return new UserError(`the image ${name} has more than ${maxPixels} pixels`, { hint: "Take a smaller one." });
    case "ERR_IMAGE_DECODE_FAILED":
      return broken(name, "is damaged");
    default:
      return error;
  }
}

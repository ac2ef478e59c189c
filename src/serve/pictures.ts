/** Pictures in requests: from base64 to what a model sees. Nothing is fetched, and no path is read. */
import { UserError } from "../errors";
import { imagesOf, type PromptImages } from "../generate/images";
import { decodeImage } from "../images/decode";
import type { Pixels } from "../images/pixels";
import type { ChatMessage } from "../text/chat-template";
import { invalid } from "./api-error";
import type { ServedModel } from "./models/served-model";

/** A picture as it came, and the field that it stands in. */
export interface Picture {
  base64: string;
  param: string;
}

/** Stands in a message's text for a picture, until it is known how the model writes one. */
export const pictureMark = "\u{f8ff}picture\u{f8ff}";

const mostPictures = 32;

/** Of all pictures of a request: three bytes each while they are looked at. */
const mostPixels = 2 ** 26;

/** The picture of a `data:` URL. @throws ApiError for a URL of another kind */
export function pictureOfUrl(url: unknown, param: string): Picture {
  const [, base64] = (typeof url === "string" && /^data:[^,]*;base64,(.*)$/is.exec(url)) || [];
  if (base64 === undefined) {
    throw invalid(`"${param}" must be a URL of the form data:image/png;base64,…: nothing is fetched`, param);
  }
  return { base64, param };
}

/**
 * What the model sees, for the prompt. Null without pictures.
 * @throws ApiError for a model that sees nothing, too many pictures, and what is none
 */
export async function seen({ model }: ServedModel, pictures: readonly Picture[]): Promise<PromptImages | null> {
  const [first] = pictures;
  if (!first) return null;
  if (!model.images) throw invalid(`"${first.param}": this model takes no pictures`, first.param);
  if (pictures.length > mostPictures) {
    throw invalid(`there are ${pictures.length} pictures: ${mostPictures} are taken`, first.param);
  }
  const images: Pixels[] = [];
  let room = mostPixels;
  for (const picture of pictures) {
    const image = await decoded(picture, room);
    room -= image.width * image.height;
    images.push(image);
  }
  return imagesOf(model, images);
}

async function decoded({ base64, param }: Picture, maxPixels: number): Promise<Pixels> {
  const text = base64.replaceAll(/\s/g, "");
  if (!/^[\w+/-]+={0,2}$/.test(text)) throw invalid(`"${param}" is no base64`, param);
  try {
    return await decodeImage(Buffer.from(text, "base64"), param, { maxPixels: Math.max(maxPixels, 1) });
  } catch (error) {
    if (error instanceof UserError) throw invalid(error.message, param);
    throw error;
  }
}

/** Messages with the model's own word for a picture in the place of each mark. */
export function withPlaces(messages: readonly ChatMessage[], placed: string): ChatMessage[] {
  return messages.map((message) =>
    typeof message.content === "string"
      ? { ...message, content: message.content.replaceAll(pictureMark, placed) }
      : message,
  );
}

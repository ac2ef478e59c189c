/** How much of the hub's answers is taken: what is compressed, endless or slow must not take the machine with it. */
import { patience } from "./environment";

/** An answer, or several that belong together, grew beyond all that a hub has to say. */
export class LimitError extends Error {}

const megabyte = 2 ** 20;

/** Bytes of one answer in JSON, unpacked. A page of a list of files takes a tenth of one megabyte. */
const largestAnswer = 16 * megabyte;

/** Bytes of the answers of one conversation. */
const largestConversation = 64 * megabyte;

/** Bytes of a piece of a file in the hub's storage, which sends them in blocks of 64 MB at most. */
const largestPiece = 128 * megabyte;

/** A list of files has a thousand a page. */
const mostRequests = 1000;

/** How many times as long as a silent connection a conversation may last that is never silent. */
const mostPatience = 10;

/** What a request is for: `answer`, facts; `pieces`, parts of files that the hub's client puts together; `file`, all of
 * one, whose receiver knows its size. */
export type Purpose = "answer" | "pieces" | "file";

/** Limits of what belongs together: the pages of one list. */
export class AnswerLimits {
  private bytes = 0;
  private requests = 0;
  private milliseconds = 0;

  constructor(private readonly purpose: Purpose) {}

  /** @throws LimitError where there were too many requests */
  request(): void {
    this.requests++;
    if (this.purpose === "answer" && this.requests > mostRequests) {
      throw new LimitError(`its answer does not end after ${mostRequests} pages`);
    }
  }

  /** Counts for one answer. @param ok an answer that refuses is no file */
  counter(ok: boolean): { take(bytes: number, milliseconds: number): void } {
    const purpose = ok ? this.purpose : "answer";
    let own = 0;
    return {
      take: (bytes, milliseconds) => {
        own += bytes;
        this.bytes += bytes;
        this.milliseconds += milliseconds;
        const largest = { answer: largestAnswer, pieces: largestPiece, file: Number.POSITIVE_INFINITY }[purpose];
        if (own > largest) throw new LimitError(`its answer does not end after ${largest / megabyte} MB`);
        if (purpose !== "answer") return;
        if (this.bytes > largestConversation) {
          throw new LimitError(`its answers do not end after ${largestConversation / megabyte} MB`);
        }
        const longest = mostPatience * patience();
        if (this.milliseconds > longest) throw new LimitError(`its answer does not end after ${longest / 1000} s`);
      },
    };
  }
}

/** Formats that a body may come in, whatever was asked for, and how the runtime calls them. */
const packings: Readonly<Record<string, string>> = {
  gzip: "gzip",
  "x-gzip": "gzip",
  deflate: "deflate",
  br: "brotli",
  zstd: "zstd",
};

/** A body as it was before it was packed, unpacked as it is read. @throws LimitError for a packing that is not known */
export function unpacked(body: ReadableStream<Uint8Array>, encoding: string | null): ReadableStream<Uint8Array> {
  const names = (encoding ?? "").split(",").map((name) => name.trim().toLowerCase());
  let stream = body;
  for (const name of names.toReversed()) {
    if (name === "" || name === "identity") continue;
    if (!Object.hasOwn(packings, name) || names.length > 2)
      throw new LimitError(`its answer is packed as "${encoding}"`);
    const format = packings[name] as "gzip";
    stream = stream.pipeThrough(new DecompressionStream(format) as ReadableWritablePair<Uint8Array, Uint8Array>);
  }
  return stream;
}

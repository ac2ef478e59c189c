import type { Codec } from "./codec";
import type { Detokenizer } from "./detokenizer";

/** For any tokenizer: decodes the current line again with each token, quadratic in the longest line's length. */
export class NaiveDetokenizer implements Detokenizer {
  tokens: number[] = [];
  #committed = "";
  #line: number[] = [];
  #read = 0;

  constructor(
    private readonly codec: Pick<Codec, "decode">,
    private readonly options: { cleansSpaces: boolean },
  ) {}

  addToken(id: number): void {
    this.tokens.push(id);
    this.#line.push(id);
  }

  get text(): string {
    const line = this.#certainLine();
    if (!line.endsWith("\n")) return this.#committed + line;
    this.#committed += line;
    this.#line = [];
    return this.#committed;
  }

  lastSegment(): string {
    const { text } = this;
    // Where decoding has taken back a space that was shown, the read text may end inside a pair of surrogates.
    const splits =
      /[\ud800-\udbff]/.test(text.charAt(this.#read - 1)) && /[\udc00-\udfff]/.test(text.charAt(this.#read));
    const segment = text.slice(this.#read + (splits ? 1 : 0));
    this.#read = text.length;
    return segment;
  }

  finalize(): void {
    this.#committed += this.#decodeLine();
    this.#line = [];
  }

  reset(): void {
    this.tokens = [];
    this.#committed = "";
    this.#line = [];
    this.#read = 0;
  }

  #decodeLine(): string {
    return this.#line.length > 0 ? this.codec.decode(this.#line) : "";
  }

  /** The line without what the next token can still change: an incomplete character, a space before punctuation. */
  #certainLine(): string {
    const line = this.#decodeLine();
    if (line.endsWith("\ufffd")) return line.replace(/\ufffd+$/, "");
    return this.options.cleansSpaces && line.endsWith(" ") ? line.slice(0, -1) : line;
  }
}

/** Tokens of a dataset's rows, by the columns that it has, as mlx-lm's training data. */
import type { Rows } from "../data/rows";
import { UserError } from "../errors";
import type { Tokenizer } from "../text/tokenizer";
import { encoderFor, usualFeatures } from "../tune/data/encoder";

/**
 * From a row's place to its tokens: prompt and completion, messages, or text.
 * @throws UserError for data of no known kind, and for a row that does not fit
 */
export function rowTokens(rows: Rows, tokenizer: Tokenizer): (index: number) => Promise<readonly number[]> {
  const { columns } = rows;
  const { prompt, completion, chat, text } = usualFeatures;
  const has = (name: string) => columns.includes(name);
  if (!(has(prompt) && has(completion)) && !has(chat) && !has(text)) {
    throw new UserError(`the data has the columns ${columns.join(", ")}, and none that mlxlm knows`, {
      hint: "It needs prompt and completion, or messages, or text.",
    });
  }
  const like = Object.fromEntries(columns.map((name) => [name, null]));
  const encode = encoderFor(like, rows.where(0), tokenizer, { features: usualFeatures, masked: false });
  return async (index) => (await encode(await rows.at(index), rows.where(index))).tokens;
}

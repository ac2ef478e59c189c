/** What an architecture says of its tokenizers, where a checkpoint is silent. */
import { expect, test } from "bun:test";
import { tokenizerOptions } from "./config";

test("Muse Spark's answers have its layout and end with its tokens, unless the configuration names others", async () => {
  const { defaults, eosTokenIds } = await tokenizerOptions({ model_type: "muse_spark" });
  expect(defaults).toMatchObject({ chat_template_type: "muse_spark", tool_parser_type: "muse_spark" });
  expect(eosTokenIds).toEqual([200_001, 200_008]);
  expect((await tokenizerOptions({ model_type: "muse_spark", eos_token_id: 7 })).eosTokenIds).toEqual([7]);
});

test("other architectures, known or not, leave it to the checkpoint", async () => {
  for (const model_type of ["llama", "poem", undefined]) {
    expect(await tokenizerOptions({ model_type, eos_token_id: [3] })).toEqual({
      eosTokenIds: [3],
      defaults: undefined,
    });
    expect((await tokenizerOptions({ model_type })).eosTokenIds ?? []).toBeEmpty();
  }
});

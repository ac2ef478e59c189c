/** The fixtures' byte-level tokenizer, with markers of thoughts beside its tokens, and calls of tools. */
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadTokenizer, type Tokenizer } from "../src/text/tokenizer";

/**
 * @param thinks without, only calls of tools have markers
 * @param marksCalls with tokens of their own, as most models do
 */
export async function thinkingTokenizer({ thinks = true, marksCalls = false } = {}): Promise<Tokenizer> {
  const folder = await mkdtemp(join(tmpdir(), "mlxlm-thinking-"));
  try {
    await cp(join(import.meta.dir, "fixtures/checkpoint"), folder, { recursive: true });
    const file = join(folder, "tokenizer_config.json");
    const shape = { special: false, lstrip: false, rstrip: false, normalized: false, single_word: false };
    const names = [...(thinks ? ["<think>", "</think>"] : []), ...(marksCalls ? ["<tool_call>", "</tool_call>"] : [])];
    const added = names.map((content, i) => [384 + i, { content, ...shape }]);
    const markers = names.length > 0 ? { added_tokens_decoder: Object.fromEntries(added) } : {};
    const config = { ...(await Bun.file(file).json()), ...markers, tool_parser_type: "json_tools" };
    await Bun.write(file, JSON.stringify(config));
    return await loadTokenizer(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

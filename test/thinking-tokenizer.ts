/** The fixtures' byte-level tokenizer, with markers of thoughts beside its tokens, and calls of tools. */
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadTokenizer, type Tokenizer } from "../src/text/tokenizer";

/** @param thinks without, only calls of tools have markers */
export async function thinkingTokenizer({ thinks = true } = {}): Promise<Tokenizer> {
  const folder = await mkdtemp(join(tmpdir(), "mlxlm-thinking-"));
  try {
    await cp(join(import.meta.dir, "fixtures/checkpoint"), folder, { recursive: true });
    const file = join(folder, "tokenizer_config.json");
    const shape = { special: false, lstrip: false, rstrip: false, normalized: false, single_word: false };
    const added_tokens_decoder = { 384: { content: "<think>", ...shape }, 385: { content: "</think>", ...shape } };
    const markers = thinks ? { added_tokens_decoder } : {};
    const config = { ...(await Bun.file(file).json()), ...markers, tool_parser_type: "json_tools" };
    await Bun.write(file, JSON.stringify(config));
    return await loadTokenizer(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

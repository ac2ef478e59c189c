/** The demo model's shape and the small files beside its weights. */
import { join } from "node:path";
import { endOfText, turnEnd, turnStart } from "./corpus";

/** A Llama of 5.2 M parameters. */
export const config = {
  model_type: "llama",
  architectures: ["LlamaForCausalLM"],
  hidden_size: 256,
  num_hidden_layers: 6,
  intermediate_size: 768,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  max_position_embeddings: 1024,
  vocab_size: 1408,
  tie_word_embeddings: true,
  bos_token_id: 0,
  eos_token_id: [0, 2],
} as const;

const chatTemplate = `{%- for message in messages -%}
{{- '${turnStart}' + message['role'] + '\\n' + message['content'] + '${turnEnd}\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '${turnStart}assistant\\n' -}}
{%- endif -%}
`;

const tokenizerConfig = {
  tokenizer_class: "PreTrainedTokenizerFast",
  bos_token: null,
  eos_token: turnEnd,
  pad_token: endOfText,
  model_max_length: config.max_position_embeddings,
  clean_up_tokenization_spaces: false,
};

/** Writes config.json, tokenizer_config.json and the chat template. */
export async function writeConfig(folder: string): Promise<void> {
  const write = (name: string, content: object) =>
    Bun.write(join(folder, name), `${JSON.stringify(content, null, 2)}\n`);
  await write("config.json", config);
  await write("tokenizer_config.json", tokenizerConfig);
  await Bun.write(join(folder, "chat_template.jinja"), chatTemplate);
}

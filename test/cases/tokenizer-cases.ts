/** Tokenizers, templates and what is asked of answers. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Case, generate, refused, same, sound } from "./case";
import {
  answered,
  byteLetters,
  byteLevelTokenizer,
  chainFolder,
  chainWeights,
  filled,
  llamaConfig,
  writeFolder,
} from "./checkpoints";

const spmDecoder = {
  type: "Sequence",
  decoders: [
    { type: "Replace", pattern: { String: "▁" }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
    { type: "Strip", content: " ", start: 1, stop: 0 },
  ],
};

const byteLevel: Case = {
  name: "bytelevel-spm-decoder",
  right: "a byte-level vocabulary is decoded as one, whatever the decoder says",
  async check({ folder, run }) {
    chainFolder(join(folder, "spm"), { tokenizer: { ...byteLevelTokenizer(), decoder: spmDecoder } });
    same((await run(generate("spm"))).text, answered, "the answer");
  },
};

/** Llama 2's shape: a mark in front, spaces as marks, bytes for what is unknown. */
function llamaTokenizer() {
  const words = [
    "<unk>",
    "<s>",
    "</s>",
    ...byteLetters.map((_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`),
  ];
  const vocab = [...words, "▁", ..."abcdefghijklmnopqrstuvwxyzINST[]/"];
  const mark = { special: true, normalized: false, single_word: false, lstrip: false, rstrip: false };
  return {
    version: "1.0",
    added_tokens: ["<unk>", "<s>", "</s>"].map((content, id) => ({ id, content, ...mark })),
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: "▁" },
        { type: "Replace", pattern: { String: " " }, content: "▁" },
      ],
    },
    pre_tokenizer: null,
    post_processor: null,
    decoder: spmDecoder,
    model: {
      ...{ type: "BPE", byte_fallback: true, unk_token: "<unk>", fuse_unk: true },
      ...{ vocab: Object.fromEntries(vocab.map((word, id) => [word, id])), merges: [] },
    },
  };
}

const llamaClass: Case = {
  name: "llama-tokenizer-class",
  right: "a LlamaTokenizer follows tokenizer.json, legacy or not",
  async check({ folder, run }) {
    const tokenizer = llamaTokenizer();
    const count = Object.keys(tokenizer.model.vocab).length;
    const counts: unknown[] = [];
    for (const [name, more] of Object.entries({
      plain: { tokenizer_class: "PreTrainedTokenizerFast" },
      legacy: { tokenizer_class: "LlamaTokenizer", legacy: true },
      modern: { tokenizer_class: "LlamaTokenizer", legacy: false },
    })) {
      writeFolder(join(folder, name), {
        ...{ config: { ...llamaConfig(count), eos_token_id: 2, bos_token_id: 1 }, tokenizer },
        weights: chainWeights(count, []),
        tokenizerConfig: {
          ...{ bos_token: "<s>", eos_token: "</s>", unk_token: "<unk>", ...more },
          chat_template: "{{ bos_token }}{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}",
        },
      });
      const ran = await run(["generate", "--model", name, "--prompt", "hi there", "-m", "1", "--json"]);
      sound(ran);
      counts.push((JSON.parse(ran.out.trim().split("\n").at(-1)!) as { prompt_tokens: number }).prompt_tokens);
    }
    // <s>, the mark in front, and one token a letter.
    same(counts, [25, 25, 25], "tokens of the prompt");
  },
};

const panics: Case = {
  name: "tokenizer-panics",
  right: "a tokenizer that the library would abort on is refused in words",
  async check({ folder, run }) {
    const replace = (pattern: object) => ({ normalizer: { type: "Replace", pattern, content: "x" } });
    const split = { type: "Split", pattern: { Regex: "(x+x+)+y" }, behavior: "Isolated", invert: false };
    const b = { type: "TemplateProcessing", single: [{ Sequence: { id: "B", type_id: 0 } }], special_tokens: {} };
    const forms: Record<string, [object, RegExp]> = {
      "replace-empty": [replace({ String: "" }), /normalizer replaces a pattern that matches nothing/],
      "replace-caret": [replace({ Regex: "^" }), /normalizer replaces a pattern that matches nothing/],
      "regex-retry": [{ pre_tokenizer: split }, /can go back without end/],
      "template-B": [{ post_processor: { ...b, pair: [{ Sequence: { id: "A", type_id: 0 } }] } }, /second text/],
    };
    for (const [name, [parts, words]] of Object.entries(forms)) {
      chainFolder(join(folder, name), { tokenizer: { ...byteLevelTokenizer(), ...parts } });
      refused(await run(generate(name, "x".repeat(40), 3)), 1, words);
    }
    const strip = { type: "Strip", content: "Ġ", start: 1, stop: 1 };
    chainFolder(join(folder, "strip"), { tokenizer: { ...byteLevelTokenizer(), decoder: strip } });
    sound(await run(generate("strip", "hi  there", 3)));

    const text = JSON.stringify(byteLevelTokenizer());
    const twice = `${text.slice(0, -1)},"pre_tokenizer":{"type":"FixedLength","length":0}}`;
    const depth = 100_000;
    const nested = '{"type":"Sequence","normalizers":['.repeat(depth);
    const deep = text.replace('"normalizer":null', `"normalizer":${nested}{"type":"NFC"}${"]}".repeat(depth)}`);
    for (const [name, content, words] of [
      ["twice", twice, /the key "pre_tokenizer" occurs twice/],
      ["deep", deep, /nests deeper/],
    ] as const) {
      writeFileSync(join(chainFolder(join(folder, name)), "tokenizer.json"), content);
      refused(await run(generate(name, "hi", 3)), 1, words);
    }
    // A text alone: a run of one kind that a pattern goes through again and again.
    const spaces = join(folder, "spaces");
    mkdirSync(spaces);
    writeFileSync(join(spaces, "train.jsonl"), `{"text": "${" ".repeat(10_000_000)}"}\n`);
    const words = ["lora", "--train", "--model", "demo", "--data", "spaces", "--iters", "1", "--batch-size", "1"];
    refused(await run(words), 1, /characters of one kind/);
  },
};

/** Templates, and the exit codes and words that are right. */
const templates: readonly [template: string, code: number, words: RegExp][] = [
  ["{{ ([]*1000000000)|length }}", 0, /^/],
  ['{% set s="x"*900000 %}{% for i in range(2500) %}{% set y=s|first %}{% endfor %}', 2, /the prompt is empty/],
  ['{{ ([1]*8000)|map(attribute="."*400000)|list|length }}', 1, /takes too much work/],
  ['{% set t="ab"*350000 %}{% set n="ab"*60000+"ba"+"ab"*60000 %}{{ n in t }}', 0, /^/],
  ["{{ [1]|tojson(separators=[]) }}", 1, /separators must be two texts/],
  ['{{ "12"|int(0,99) }}', 1, /a base from 2 to 36/],
];

const templateBudget: Case = {
  name: "template-budget",
  right: "a template ends within its budget",
  async check({ folder, run }) {
    for (const [i, [chat_template, code, words]] of templates.entries()) {
      chainFolder(join(folder, `t${i}`), { tokenizerConfig: { chat_template } });
      const began = performance.now();
      refused(await run(generate(`t${i}`, "hi", 2)), code, words);
      const seconds = (performance.now() - began) / 1000;
      if (seconds > 10) throw new Error(`${chat_template}: ${seconds.toFixed(1)} s`);
    }
  },
};

const task = (name: string, until: string) => `task: ${name}
dataset_path: json
dataset_kwargs: {data_files: {test: q.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "Q: {{q}}\\nA:"
doc_to_target: "{{a}}"
generation_kwargs: {until: [${JSON.stringify(until)}], do_sample: false, max_gen_toks: 24}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
`;

const thinkUntil: Case = {
  name: "think-until",
  right: "a stop text counts behind the thought",
  async check({ folder, run }) {
    const marks = ["<|im_start|>", "<|im_end|>", "<think>", "</think>"];
    const chain = [58, 258, 97, 120, 98, 259, 52, 50, 257]; // : <think> a x b </think> 4 2
    writeFolder(join(folder, "thinker"), {
      ...{ config: llamaConfig(260), tokenizer: byteLevelTokenizer(marks), weights: chainWeights(260, chain) },
    });
    writeFileSync(join(folder, "q.jsonl"), '{"q":"1","a":"42"}\n{"q":"2","a":"42"}\n');
    writeFileSync(join(folder, "think.yaml"), task("think", "x"));
    writeFileSync(join(folder, "think2.yaml"), task("think2", "Q:"));
    const ran = await run([
      ...["evaluate", "--model", "thinker", "--tasks", "think", "think2", "--include-path", "."],
      "--no-apply-chat-template",
    ]);
    sound(ran);
    const scores = [...ran.out.matchAll(/^\|(think2?) *\|.*?exact_match\|↑ *\| *([\d.]+)/gm)].map(([, name, value]) => [
      name,
      value,
    ]);
    same(
      scores,
      [
        ["think", "1"],
        ["think2", "1"],
      ],
      "the scores",
    );
  },
};

const notNumbers: Case = {
  name: "logits-nan",
  right: "a model whose logits are no numbers is said to be one",
  async check({ folder, run }) {
    // Sound numbers, whose products are none.
    const weights = { ...chainWeights(258, []), "lm_head.weight": filled([258, 64], 3e38) };
    chainFolder(join(folder, "nan"), { weights });
    refused(await run(generate("nan", "hi", 4)), 1, /logits/);
  },
};

export const tokenizerCases: readonly Case[] = [byteLevel, llamaClass, panics, templateBudget, thinkUntil, notNumbers];

"""Text fixtures: three tiny tokenizers, what mlx-lm's detokenizers stream for them, and rendered chat templates.

    python text.py      train the tokenizers where they are missing, write the rest
"""

import json
import random
import tempfile
from datetime import datetime
from pathlib import Path

import transformers.utils.chat_template_utils as chat_template_utils
from mlx_lm.tokenizer_utils import load
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

FIXTURES = Path(__file__).parent.parent / "fixtures" / "text"

CORPUS = [
    "The quick brown fox jumps over the lazy dog. A tokenizer cuts text into pieces, and a detokenizer joins them again.",
    "She said: \"It's 3.14, isn't it?\" They'd answered that they couldn't tell, but we've seen 2 + 2 = 4 many times.",
    "def add(a, b):\n    return a + b\n\nfor i in range(10):\n    print(i, add(i, 1))\n",
    "Der Fluß fließt über große Steine; où est la bibliothèque? ¿Dónde está el niño? Gdzie jest żółw?",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Быстрая лиса прыгает через ленивую собаку.",
    "敏捷的棕色狐狸跳过了懒狗。我们把文字切成小块,然后再拼起来。日本語のテキストも少しあります。かな、カナ、漢字。",
    "다람쥐 헌 쳇바퀴에 타고파. نص عربي قصير للتجربة. טקסט קצר בעברית. हिन्दी में एक वाक्य। ข้อความภาษาไทย",
    "Emoji: 😀 😂 🥰 👍🏽 👩‍👩‍👧‍👦 🇩🇪 🏳️‍🌈 and symbols ∑ √ ∞ → ← ≠ € £ ¥ ½ ²",
]

TEXTS = [
    "",
    "Hello",
    " leading space",
    "  two spaces,  and   three",
    "trailing space ",
    "tabs\tand\nnewlines\n\n  indented\n",
    "It's 3.14 , isn't it ? They've \" quoted \" .",
    "Der Fluß fließt über große Steine.",
    "Съешь же ещё этих мягких булок",
    "敏捷的棕色狐狸跳过了懒狗。日本語のテキスト",
    "نص عربي and עברית mixed हिन्दी ภาษาไทย",
    "👩‍👩‍👧‍👦 family, 🇩🇪 flag, 👍🏽 skin, 🏳️‍🌈 rainbow 😀😂",
    "unseen: ꙮ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🦄 ᚠᛇᚻ",
    "replacement \ufffd inside, zero\u200bwidth, nbsp\u00a0here, bom\ufeffthere",
    "def add(a, b):\n    return a + b\n",
    "▁ the lower eighth block ▁▁ as text",
    "<|im_start|>user\nHi<|im_end|>\n",
    "a\r\nb\r\n",
]


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return tokenizer, trainer, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}


def byte_fallback():
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        limit_alphabet=120,
        special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)],
        show_progress=False,
    )
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_eos_token": True}
    return tokenizer, trainer, config


def word_piece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    config = {
        "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]",
        "eos_token": "[SEP]", "clean_up_tokenization_spaces": True,
    }  # fmt: skip
    return tokenizer, trainer, config


TOKENIZERS = {"byte-level": byte_level, "byte-fallback": byte_fallback, "word-piece": word_piece}


def train(name):
    folder = FIXTURES / name
    if (folder / "tokenizer.json").exists():
        return
    tokenizer, trainer, config = TOKENIZERS[name]()
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    if name == "byte-fallback":
        # Byte pieces are ordinary vocabulary, as SentencePiece has them; the trainer only knows how to reserve tokens.
        state = json.loads(tokenizer.to_str())
        state["added_tokens"] = state["added_tokens"][:3]
        tokenizer = Tokenizer.from_str(json.dumps(state))
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    if name == "word-piece":
        ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def stream(tokenizer, ids):
    """The segment after each token, and the one that finalize adds."""
    detokenizer = tokenizer.detokenizer
    segments = []
    for token in ids:
        detokenizer.add_token(token)
        segments.append(detokenizer.last_segment)
    detokenizer.finalize()
    return segments + [detokenizer.last_segment]


def describe(tokenizer):
    rng = random.Random(7)
    zero_byte = tokenizer.get_vocab().get("Ā")  # mlx-lm prints this byte as "Ā"
    candidates = [token for token in range(len(tokenizer)) if token != zero_byte]
    random_ids = [[rng.choice(candidates) for _ in range(24)] for _ in range(6)]
    return {
        "vocab_size": len(tokenizer),
        "eos_token_ids": sorted(tokenizer.eos_token_ids),
        "encodings": [
            {
                "text": text,
                "ids": tokenizer.encode(text, add_special_tokens=False),
                "with_special_tokens": tokenizer.encode(text),
                "decoded": tokenizer.decode(tokenizer.encode(text), skip_special_tokens=True),
            }
            for text in TEXTS
        ],
        "streams": [
            {"ids": ids, "decoded": tokenizer.decode(ids), "segments": stream(tokenizer, ids)}
            for ids in [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS] + random_ids
        ],
    }


def untrimmed(folder):
    """The byte-fallback tokenizer with a decoder that keeps the first space."""
    state = json.loads((FIXTURES / "byte-fallback" / "tokenizer.json").read_text())
    state["decoder"]["decoders"].pop()
    (folder / "tokenizer.json").write_text(json.dumps(state))
    (folder / "tokenizer_config.json").write_text((FIXTURES / "byte-fallback" / "tokenizer_config.json").read_text())
    return load(folder)


USER = {"role": "user", "content": "What is 2 + 2? Say <it> \"twice\"."}
SYSTEM = {"role": "system", "content": "  Be brief.\nAnd kind. "}
REPLY = {"role": "assistant", "content": "  Four. 四 🍀 "}
THOUGHT = {"role": "assistant", "content": "<think>\n\n  sum\n</think>\n\n  Four."}
AGAIN = {"role": "user", "content": "Again?"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "abcdef123", "type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": [1.5, None, True]}}}],
}
RESULT = {"role": "tool", "content": "4", "tool_call_id": "abcdef123"}
PARTS = {"role": "user", "content": [{"type": "text", "text": " Look: "}, {"type": "image"}, {"type": "text", "text": "what?"}]}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds, e.g. ½ + ½",
            "parameters": {
                "type": "object",
                "properties": {
                    "b": {"type": "number"},
                    "a": {"type": "number"},
                    "options": {"type": "object", "properties": {"round": {"type": "boolean"}, "x": {}}},
                },
                "required": ["a", "b"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}},
]

TURNS = [SYSTEM, USER, REPLY, AGAIN]
CHATS = {
    "chatml": [{"messages": TURNS}, {"messages": [USER], "add_generation_prompt": True}],
    "llama3": [
        {"messages": TURNS, "add_generation_prompt": True},
        {"messages": [USER, CALL, RESULT], "tools": TOOLS, "add_generation_prompt": True},
        {"messages": [USER], "kwargs": {"date_string": "1 Jan 2026", "bos_token": "<other>"}},
    ],
    "gemma": [
        {"messages": TURNS, "add_generation_prompt": True},
        {"messages": [PARTS], "add_generation_prompt": True},
        {"messages": [USER, AGAIN]},
    ],
    "mistral": [
        {"messages": TURNS},
        {"messages": [USER, CALL, RESULT, AGAIN], "tools": TOOLS},
        {"messages": [USER, {"role": "poet", "content": "x"}]},
    ],
    "phi": [{"messages": TURNS, "add_generation_prompt": True}, {"messages": [USER, REPLY]}],
    "qwen3": [
        {"messages": TURNS, "add_generation_prompt": True},
        {"messages": TURNS, "add_generation_prompt": True, "kwargs": {"enable_thinking": False}},
        {"messages": [USER, THOUGHT], "add_generation_prompt": False},
        {"messages": [USER, THOUGHT, AGAIN], "add_generation_prompt": True},
        {"messages": [SYSTEM, USER, {**CALL, "reasoning": "\nadd them\n"}, RESULT, RESULT, REPLY], "tools": TOOLS},
    ],
    "macros": [
        {"messages": TURNS, "tools": TOOLS},
        {"messages": [USER, AGAIN, REPLY, {"role": "stop", "content": ""}, USER]},
        {"messages": [{"role": "user", "content": "a\n<b>\n\nc"}]},
    ],
    "python": [{"messages": [{"role": "user", "content": "it's", "n": None, "x": 1.5}, USER], "add_generation_prompt": True}],
}
PREFILLS = ["The answer", "The answer is ", "  spaced\n\n", "2 + 2? Say"]


def render(tokenizer, template, chat):
    tokenizer.chat_template = template
    try:
        return {
            "text": tokenizer.apply_chat_template(
                chat["messages"],
                tools=chat.get("tools"),
                tokenize=False,
                add_generation_prompt=chat.get("add_generation_prompt", False),
                continue_final_message=chat.get("continue_final_message", False),
                **chat.get("kwargs", {}),
            )
        }
    except Exception as error:
        return {"error": str(error).split("\n")[0]}


def chats():
    class FixedClock(datetime):
        @classmethod
        def now(cls):
            return cls(2026, 3, 5, 14, 7, 9)

    chat_template_utils.datetime = FixedClock
    tokenizer = load(FIXTURES / "byte-level")
    tokenizer.bos_token = "<|endoftext|>"
    cases = []
    for name, inputs in CHATS.items():
        prefills = [
            {"messages": [USER, {"role": "assistant", "content": prefill}], "continue_final_message": True}
            for prefill in PREFILLS
        ]
        template = (FIXTURES / "templates" / f"{name}.jinja").read_text()
        for chat in inputs + (prefills if name != "python" else []):
            cases.append({"template": name, **chat, **render(tokenizer, template, chat)})
    return cases


def write(name, value):
    lines = ",\n".join(json.dumps(item, ensure_ascii=False) for item in value)
    (FIXTURES / name).write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    for name in TOKENIZERS:
        train(name)
    with tempfile.TemporaryDirectory() as folder:
        described = [{"tokenizer": name, **describe(load(FIXTURES / name))} for name in TOKENIZERS]
        described.append({"tokenizer": "byte-fallback, untrimmed", **describe(untrimmed(Path(folder)))})
    write("tokenizers.json", described)
    write("chats.json", chats())

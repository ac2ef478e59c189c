"""What Python's tiktoken makes of a small vocabulary, by the patterns and special tokens of the families that mlxlm knows."""

import base64

import tiktoken
from tiktoken._educational import bpe_train

import encode

TEXT = """The quick brown fox jumps over the lazy dog. It's 1234 o'clock, and they'll've gone by 2026!
敏捷的棕色狐狸跳过了懒狗。Größe, naïve café — ÀÉÎ; HTTPServer, camelCase, iPhone15Pro
	if (x == 10) {   return "yes";   }


素早い茶色の狐がのろまな犬を飛び越える 😀👍🏽 !!!
"""

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = [r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"]


def words(digits):
    return "|".join([CONTRACTIONS, r"[^\r\n\p{L}\p{N}]?\p{L}+", digits, r" ?[^\s\p{L}\p{N}]+[\r\n]*", *SPACES])


UPPER, LOWER, HAN = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}", r"&&[^\p{Han}]"
KIMI = "|".join([
    r"[\p{Han}]+", rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}{HAN}]*[{LOWER}{HAN}]+{CONTRACTIONS}?",
    rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}{HAN}]+[{LOWER}{HAN}]*{CONTRACTIONS}?", r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", *SPACES,
])

# tokenizer_class: pattern, and some special tokens by how far behind the vocabulary they are.
FAMILIES = {
    "HYTokenizer": (words(r"\p{N}"), {"<|endoftext|>": 0, "<|startoftext|>": 1, "<|pad|>": 4, "<|extra_0|>": 5, "<|extra_203|>": 208}),
    "Phi3SmallTokenizer": (
        words(r"\p{N}{1,3}"),
        {"<|dummy_id_2|>": 0, "<|endoftext|>": 1, "<|system|>": 5, "<|user|>": 6, "<|assistant|>": 7, "<|end|>": 10,
         "<|dummy_id_3|>": 11, "<|dummy_id_11|>": 19, "<|endofprompt|>": 20, "<|dummy_id_12|>": 21, "<|dummy_id_86|>": 95},
    ),
    "QWenTokenizer": (words(r"\p{N}"), {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "<|extra_0|>": 3, "<|extra_204|>": 207}),
    "TikTokenTokenizer": (KIMI, {"[BOS]": 0, "[EOS]": 1, "<|im_end|>": 2}),
}

TEXTS = [
    TEXT, "Hello, wörld!", "don't DON'T we'Ll", "  leading and trailing  ", "12345 67 8\n\n\n9", "café", "x\r\n\r\n y\t\tz", "漢字かな混じりABC文", "",
]

if __name__ == "__main__":
    ranks = bpe_train(TEXT * 2, 420, words(r"\p{N}{1,3}"), visualise=None)
    cases = {}
    for name, (pattern, special) in FAMILIES.items():
        ids = {token: len(ranks) + place for token, place in special.items()}
        encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=ids)
        texts = [*TEXTS, "".join(f"{token} and " for token in ids)]
        cases[name] = {"special": ids, "texts": [[text, encoding.encode(text, allowed_special="all")] for text in texts]}
    tokens = [base64.b64encode(token).decode() for token, _ in sorted(ranks.items(), key=lambda item: item[1])]
    encode.write("tiktoken.json", {"tokens": tokens, "cases": cases})

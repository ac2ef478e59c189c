"""Evaluation on the demo model: perplexity, and lm-evaluation-harness tasks over small local data sets."""

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mlx_lm import load
from mlx_lm.perplexity import eval_ppl, load_data

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "test/fixtures/evaluate"
MODEL = str(ROOT / "src/demo/model")

ANIMALS = ["fox", "dog", "hare", "owl", "turtle", "bear", "cat", "mouse"]
NAMES = ["Mia", "Finn", "Ben", "Lily", "Tom", "Nora", "Max", "Ida"]
PLACES = ["green forest", "small village", "warm valley", "old barn", "quiet lake"]
dice = random.Random(20)


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def story():
    (name, friend), (animal, other) = dice.sample(NAMES, 2), dice.sample(ANIMALS, 2)
    return (
        f"A brave {animal} named {name} lived in a {dice.choice(PLACES)}. One day, {name} met {friend} the {other}. "
        f"They went to the river together, and {friend} told {name} a story."
    )


def texts():
    write_rows(FIXTURES / "texts/train.jsonl", [{"text": story()} for _ in range(60)])
    chats = [
        {"messages": [{"role": "user", "content": f"What is {a} + {b}?"}, {"role": "assistant", "content": f"{a} + {b} = {a + b}."}]}
        for a, b in [(dice.randrange(100), dice.randrange(100)) for _ in range(40)]
    ]
    write_rows(FIXTURES / "chats/train.jsonl", chats)


def draws(seed):
    rng = random.Random(seed)
    items = list(range(12))
    drawn = {
        "seed": seed,
        "random": rng.random(),
        "sample": rng.sample(range(10), 5),
        "sample_of_many": rng.sample(range(100000), 7),
        "choices": rng.choices(range(17), k=9),
        "below": [rng.randrange(n) for n in (1, 2, 3, 1000, 2**31)],
    }
    rng.shuffle(items)
    return {**drawn, "shuffled": items}


def permutation(seed, count):
    np.random.seed(seed)
    return {"seed": seed, "count": count, "order": np.random.permutation(count).tolist()}


def perplexities():
    model, tokenizer = load(MODEL)
    cases = []
    for name, samples, length, batch, seed in [("texts", 8, 64, 3, 123), ("chats", 256, 16, 8, 7)]:
        np.random.seed(seed)
        try:
            data = load_data(tokenizer, str(FIXTURES / name), samples, length)
        except IndexError:  # the data has fewer tokens: all of them, as many as make whole rows
            np.random.seed(seed)
            data = load_data(tokenizer, str(FIXTURES / name), 30, length)
        perplexity, error = eval_ppl(model, data, batch)
        cases.append(
            {
                "data": name, "numSamples": data.shape[0], "sequenceLength": length, "batchSize": batch, "seed": seed,
                "tokens": data.tolist(), "perplexity": perplexity, "standard_error": error,
            }
        )  # fmt: skip
    return cases


def tables():
    """The same rows in several formats."""
    table = pa.table(
        {
            "name": ["a", "b", None],
            "count": pa.array([1, 2**53 + 1, -3], pa.int64()),
            "score": pa.array([1.0, 2.5, None], pa.float64()),
            "choices": pa.array([["x", "y"], [], None], pa.list_(pa.string())),
            "nested": pa.array([{"weight": [1.0], "id": 1}, {"weight": [], "id": 2}, None]),
            "truth": [True, False, None],
        }
    )
    for compression in ["snappy", "zstd", "none"]:
        pq.write_table(table, FIXTURES / f"table-{compression}.parquet", compression=compression, row_group_size=2)


if __name__ == "__main__":
    texts()
    tables()
    numbers = {
        "random": [draws(seed) for seed in (0, 1234, 123, 2**35 + 7)],
        "permutations": [permutation(123, 20), permutation(7, 1), permutation(4000000000, 33)],
        "perplexity": perplexities(),
    }
    (FIXTURES / "numbers.json").write_text(json.dumps(numbers) + "\n")

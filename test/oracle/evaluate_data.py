"""Small data sets in the shape of the harness's best known tasks, with the task files that use them."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DATA = Path(__file__).resolve().parents[2] / "test/fixtures/evaluate/data"

ANIMALS = ["fox", "dog", "hare", "owl", "turtle", "bear", "cat", "mouse", "duck", "goat", "frog", "hedgehog"]
NAMES = ["Mia", "Finn", "Ben", "Lily", "Tom", "Nora", "Max", "Ida", "Leo", "Zoe"]
PLACES = ["green forest", "small village", "warm valley", "old barn", "quiet lake", "high hill"]
THINGS = ["red ball", "blue kite", "warm scarf", "little boat", "big cake", "golden key", "café table", "naïve map"]
FEELINGS = ["happy", "sad", "tired", "hungry", "proud", "afraid"]
dice = random.Random(20)


def write_rows(name, rows):
    path = DATA / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_parquet(name, rows):
    path = DATA / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


def rows(make, count):
    return [make() for _ in range(count)]


def arc():
    count = dice.choice([3, 4, 4, 4, 5])
    labels = list("ABCDE" if dice.random() < 0.8 else "12345")[:count]
    hero, friend = dice.sample(NAMES, 2)
    return {
        "id": f"Local_{dice.randrange(10**6)}",
        "question": f"{hero} has a {dice.choice(THINGS)} and meets {friend} at the {dice.choice(PLACES)}. What does {hero} see?",
        "choices": {"text": [f"a {one}" for one in dice.sample(ANIMALS, count)], "label": labels},
        "answerKey": dice.choice(labels),
    }


def boolq():
    a, b = dice.randrange(20), dice.randrange(20)
    shown = a + b + dice.choice([0, 0, 1, -1])
    passage = f"{dice.choice(NAMES)} counts {a} apples and {b} pears. " + f"That makes {shown}." * dice.randrange(2)
    return {"passage": passage, "question": f"is {a} + {b} = {shown}", "idx": a, "label": int(shown == a + b)}


def hellaswag():
    name, (animal, other) = dice.choice(NAMES), dice.sample(ANIMALS, 2)
    return {
        "ind": dice.randrange(1000),
        "activity_label": dice.choice(["Telling a story", "Walking home", "Making a cake"]),
        "ctx_a": f"A little {animal} named {name} walks to the {dice.choice(PLACES)}. [title] The road is long.",
        "ctx_b": dice.choice(["the " + other, name.upper(), "ÉLAN of the " + other, ""]),
        "endings": [
            f" smiles at {name} [substeps] and  goes home.",
            f" gives the {animal} a {dice.choice(THINGS)}.",
            f"is very {dice.choice(FEELINGS)}. ",
            f"asks for the {dice.choice(THINGS)} and runs away.",
        ],
        "label": str(dice.randrange(4)),
    }


def winogrande():
    one, two = dice.sample(NAMES, 2)
    feeling = dice.choice(FEELINGS)
    return {
        "sentence": f"{one} gave the {dice.choice(THINGS)} to {two} because _ was {feeling}.",
        "option1": one,
        "option2": two,
        "answer": dice.choice("12"),
    }


def mmlu_sum():
    a, b = dice.randrange(50), dice.randrange(50)
    choices = [str(a + b + shift) for shift in dice.sample(range(-5, 6), 4)]
    return {"question": f" What is {a} + {b}?", "subject": "sums", "choices": choices, "answer": dice.randrange(4)}


def mmlu_story():
    animals = dice.sample(ANIMALS, 4)
    question = f"Who lives in the {dice.choice(PLACES)}?\nThink of \"{dice.choice(NAMES)}\"."
    return {"question": question, "subject": "stories", "choices": animals, "answer": dice.randrange(4)}


def gsm8k():
    name, a, b = dice.choice(NAMES), dice.randrange(1, 60), dice.randrange(1, 60)
    total = dice.choice([f"{a + b}", f"{a + b:,}", f"{a + b}.0"])
    return {
        "question": f"{name} has {a} apples and gets {b} more. What is {a} + {b}?",
        "answer": f"{a} + {b} = <<{a}+{b}={a + b}>>{a + b}\n#### {total}",
    }


def lambada():
    name, friend = dice.sample(NAMES, 2)
    animal = dice.choice(ANIMALS)
    return {
        "text": f"A {animal} named {name} lived in a {dice.choice(PLACES)}. One day {name} met {friend}. "
        f'"Hello, {friend}," said {dice.choice([name, "the " + animal])}'
    }


def page():
    parts = [f" = {dice.choice(PLACES).title()} = \n"]
    for _ in range(dice.randrange(2, 9)):
        name, animal = dice.choice(NAMES), dice.choice(ANIMALS)
        parts.append(
            f" {name} 's {animal} was {dice.randrange(1, 30)} @.@ {dice.randrange(10)} years old , and well @-@ known ; "
            f'it said " hello {name} " ( a {dice.choice(FEELINGS)} word ) [ {dice.randrange(9)} ] at 20 ° C : yes ! \n'
        )
    return {"page": "".join(parts) + "  = = Notes = = \n"}


def trivia():
    a, b = dice.randrange(30), dice.randrange(30)
    words = [f"{a + b}", f" {a + b}.", f"the {a + b}", "zero"][: dice.randrange(1, 5)]
    return {"question": f"What is {a} + {b}", "answer": {"value": f"{a + b}", "aliases": words}}


def bbh():
    flags = [dice.choice(["True", "False"]) for _ in range(3)]
    text = f"not ( {flags[0]} ) and {flags[1]} or {flags[2]} is"
    return {"input": text, "target": str(eval(text[:-3]))}


def acceptable():
    words = f"{dice.choice(NAMES)} likes the {dice.choice(THINGS)} very much".split()
    good = dice.random() < 0.6
    if not good:
        dice.shuffle(words)
    return {"sentence": " ".join(words) + dice.choice([".", " .", ""]), "label": int(good), "idx": dice.randrange(999)}


def write():
    write_rows("arc/train", rows(arc, 60))
    write_rows("arc/test", rows(arc, 200))
    questions = rows(boolq, 195)
    write_rows("boolq/test", questions + questions[:5])
    write_rows("hellaswag/train", rows(hellaswag, 20))
    write_rows("hellaswag/validation", rows(hellaswag, 200))
    write_parquet("winogrande/train", rows(winogrande, 40))
    write_parquet("winogrande/validation", rows(winogrande, 200))
    for name, make, count in [("sums", mmlu_sum, 200), ("stories", mmlu_story, 120)]:
        write_rows(f"mmlu/{name}/validation", rows(make, 6))
        write_rows(f"mmlu/{name}/test", rows(make, count))
    write_rows("gsm8k/train", rows(gsm8k, 50))
    write_rows("gsm8k/test", rows(gsm8k, 200))
    write_rows("lambada/test", rows(lambada, 200))
    write_rows("wikitext/test", rows(page, 30))
    write_rows("triviaqa/train", rows(trivia, 30))
    write_rows("triviaqa/validation", rows(trivia, 200))
    write_rows("bbh/test", rows(bbh, 200))
    write_rows("cola/validation", rows(acceptable, 200))


if __name__ == "__main__":
    write()

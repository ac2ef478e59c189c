"""
Tasks of lm-evaluation-harness over the data of evaluate_data.py, by mlx-lm's own adapter: on some rows the demo model
answers, on all rows a formula that the tests have too.
"""

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
os.chdir(ROOT)
scratch = tempfile.mkdtemp()
os.environ.update(HF_HOME=scratch, HF_HUB_OFFLINE="1", DISABLE_MULTIPROC="1", TOKENIZERS_PARALLELISM="false")

import evaluate_data  # noqa: E402
import lm_eval  # noqa: E402
import mlx.core as mx  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from lm_eval.utils import handle_non_serializable, make_table  # noqa: E402
from mlx_lm.evaluate import MLXLM  # noqa: E402
from mlx_lm.sample_utils import make_sampler  # noqa: E402

FIXTURES = ROOT / "test/fixtures/evaluate"
HARNESS = Path(lm_eval.__file__).parent / "tasks"
# Where the functions that the task files name are to be found.
MODULES = {
    "hellaswag": "hellaswag/utils.py",
    "winogrande": "winogrande/preprocess_winogrande.py",
    "wikitext": "wikitext/preprocess_wikitext.py",
}
EVERYTHING = [
    "local_arc", "local_boolq", "local_hellaswag", "local_winogrande", "local_mmlu", "local_cola", "local_lambada",
    "local_wikitext", "local_gsm8k", "local_triviaqa", "local_bbh",
]  # fmt: skip
CHATS = ["local_arc", "local_boolq", "local_winogrande", "local_mmlu", "local_cola", "local_gsm8k", "local_lambada"]
# Bootstraps of 100,000 draws take sklearn's scores many minutes; the cheap one is made whole.
FEW = 2000
CASES = {
    "plain": {"tasks": EVERYTHING, "chat": False, "multiturn": False, "shots": None, "limit": None, "draws": FEW},
    "whole": {"tasks": ["local_lambada"], "chat": False, "multiturn": False, "shots": 2, "limit": 60, "draws": 100000},
    "chat": {"tasks": CHATS, "chat": True, "multiturn": False, "shots": None, "limit": 60, "draws": FEW},
    "multiturn": {
        "tasks": ["local_choices", *CHATS[1:]], "chat": True, "multiturn": True, "shots": 1, "limit": 40, "draws": FEW,
    },
    "model": {"tasks": EVERYTHING, "chat": False, "multiturn": False, "shots": None, "limit": 4, "draws": FEW},
    "model-chat": {"tasks": CHATS, "chat": True, "multiturn": True, "shots": 1, "limit": 3, "draws": FEW},
}  # fmt: skip
KEPT = ["results", "groups", "group_subtasks", "versions", "n-shot", "higher_is_better", "n-samples"]


class Formula(MLXLM):
    """Answers that only depend on the request, in no time."""

    def loglikelihood(self, requests):
        numbers = [self.number(*request.args) for request in requests]
        return [(-(n % 100003) / 20000, n % 3 == 0) for n in numbers]

    def loglikelihood_rolling(self, requests):
        return [-(self.number(request.args[0]) % 1000003) / 500 for request in requests]

    def generate_until(self, requests):
        return [self.text(request.args[0]) for request in requests]

    def number(self, *texts):
        return int.from_bytes(hashlib.sha256("\0".join(texts).encode()).digest()[:4], "big")

    def text(self, context):
        a, b = (re.findall(r"What is (\d+) \+ (\d+)", context) or [("1", "1")])[-1]
        total = int(a) + int(b)
        texts = [
            f"{total}", f" {total}. ", f"It is {total}.\n#### {total}", f"#### ${total},000", "the answer is True.",
            "So the answer is False. Q", "The Answer is false", "zero!", "", f"The {total}",
        ]  # fmt: skip
        return texts[self.number(context) % len(texts)]


def task_folder():
    """A copy of the task files with the harness's modules beside them."""
    folder = Path(scratch) / "tasks"
    shutil.copytree(FIXTURES / "tasks", folder)
    for place, module in MODULES.items():
        shutil.copy(HARNESS / module, folder / place)
    return folder


def answer(resps):
    """Of one request: a text, a score, or a score with whether it is what greedy decoding gives."""
    (first,) = resps
    if isinstance(first, str):
        return first
    score, greedy = first if isinstance(first, tuple) else (first, None)
    score = round(score, 6) if score > float("-inf") else None
    return score if greedy is None else [score, bool(greedy)]


def whole(value):
    """Floats that are whole as integers, which is how JavaScript writes them."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    return [whole(item) for item in value] if isinstance(value, (list, tuple)) else value


def hashed(value):
    value = whole(value)
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()[:12]


def asked(sample):
    """Hashes of all requests of a row: contexts, continuations, settings."""
    return hashed(sample["arguments"])


def evaluate(manager, lm, name, options):
    mx.random.seed(123)
    lm.use_chat_template = options["chat"]
    found = lm_eval.simple_evaluate(
        model=lm,
        tasks=options["tasks"],
        task_manager=manager,
        fewshot_as_multiturn=options["multiturn"],
        apply_chat_template=options["chat"],
        num_fewshot=options["shots"],
        limit=options["limit"],
        bootstrap_iters=options["draws"],
        random_seed=123,
        numpy_random_seed=123,
        torch_random_seed=123,
        fewshot_random_seed=123,
    )
    samples = {}
    for task, rows in found["samples"].items():
        first = rows[0]["filter"]
        rows_once = [row for row in rows if row["filter"] == first]
        samples[task] = {
            "asked": [asked(row) for row in rows_once],
            "first": rows_once[0]["arguments"],
            "answers": [[answer(resps) for resps in row["resps"]] for row in rows_once],
            "hashes": [
                [row["doc_hash"][:12], row["prompt_hash"][:12], row["target_hash"][:12]] for row in rows_once[:20]
            ],
        }
    tables = [make_table(found)] + ([make_table(found, "groups")] if "groups" in found else [])
    kept = {key: found[key] for key in KEPT if key in found}
    whole = {"options": options, **kept, "tables": tables, "samples": samples}
    text = json.dumps(whole, default=handle_non_serializable, ensure_ascii=False)
    (FIXTURES / f"tasks-{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    evaluate_data.write()
    manager = TaskManager(include_path=str(task_folder()), include_defaults=False)
    for name, options in CASES.items():
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            kind = MLXLM if name.startswith("model") else Formula
            sampler = make_sampler(temp=0.0)
            lm = kind(str(ROOT / "src/demo/model"), batch_size=8, use_chat_template=False, sampler=sampler)
            evaluate(manager, lm, name, options)
    shutil.rmtree(scratch)
    print("lm_eval", importlib.metadata.version("lm_eval"))

"""What the harness's own functions make of rows and of scores: those that mlxlm has written anew."""

import importlib.util
import json
import os
import random
from pathlib import Path

import datasets
import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import exact_match_hf_evaluate, stderr_for_metric
from lm_eval.api.registry import get_aggregation
from lm_eval.filters import build_filter_ensemble

HARNESS = Path(lm_eval.__file__).parent / "tasks"
FIXTURES = Path(__file__).resolve().parents[2] / "test/fixtures/evaluate"

PROBLEMS = str(
    [
        {"question": "Tom went to the  _  .", "answer": "B", "options": ["zoo", "lake", "mill", "hill"]},
        {"question": "Who's \"he\"?", "answer": "A", "options": ["Tom", "Ben's cat", "Max", "Mia"]},
        {"question": "Which is the best title?", "answer": "D", "options": ["a", "b", "c", "d"]},
    ]
)
GPQA = [
    {
        "Question": f"What is {n}?",
        "Correct Answer": f" {n} [title] metres ",
        "Incorrect Answer 1": f"{n + 1}  [x] metres",
        "Incorrect Answer 2": None if n == 2 else f"{n + 2}",
        "Incorrect Answer 3": f"no number é",
    }
    for n in range(12)
]
PAGES = [
    " = Title = \n The dog 's bowl was 3 @.@ 5 , \" big \" ( or so ) ; it ' s [ 1 ] { x } : yes ! \n = = = End = = = \n",
    "It was 20 ° C . N dogs ? the boys ' cat /' 7/ x @-@ y @,@ z \n\n",
    "",
]
MMLU = [
    {
        "question": "Which one?", "options": [" a ", "b\n", "é", "d"] + ["more"] * count, "category": subject,
        "cot_content": "A: Let's think step by step. It is b. The answer is (B).",
    }
    for count, subject in [(0, "law"), (6, "computer science"), (8, "law")]
]  # fmt: skip
COPA = [
    {"premise": "The man broke his toe. ", "question": "cause", "choice1": "He dropped a hammer.", "choice2": "Él.", "label": 0},
    {"premise": "It rained.", "question": "effect", "choice1": "The road was wet.", "choice2": "All slept.", "label": 1},
]
WSC = [
    {"text": "Mark told Pete ( again ) that he did n't know , \" never \" .", "span1_text": "Mark", "span2_text": "he", "span2_index": 7},
    {"text": "The café was full, so it closed.", "span1_text": "The café", "span2_text": "it", "span2_index": 5},
]
MNLI = [{"premise": "A dog runs.", "hypothesis": " It moves. "}, {"premise": "A dog runs.", "hypothesis": "It sleeps"}]
RACE = [{"article": "A long text.", "problems": PROBLEMS}, {"article": "x", "problems": str([eval(PROBLEMS)[1]])}]
LOGIQA = [{"context": "All dogs bark.", "question": "What follows?", "options": ["a", "b", "c", "d"], "label": "c "}]
MEDMCQA = [{"question": "Which bone?", "opa": "radius", "opb": "ulna", "opc": "tibia", "opd": "é"}]
MEDQA = [{"sent1": "A man coughs.", "ending0": "a", "ending1": "b", "ending2": "c", "ending3": "d", "label": 2}]
PUBMED = [{"CONTEXTS": ["One.", "Two."], "QUESTION": "Does it help?"}]
MATH = [{"options": "a ) 38 , b ) 27.675 , c ) 30 , d ) data inadequate , e ) none of these"}, {"options": "a ) 1 , b ) 2"}]
ARITHMETIC = [{"context": "\n\nQ: What is 2 plus 3?\n\nA:", "completion": " 5"}]
MUSR = [{"narrative": "A story.", "question": "Who did it?", "choices": "['Ann', \"Ben's dog\"]"}]
WINOGRANDE = [{"sentence": "Ann thanked Bob as _ was  kind. ", "option1": "Ann", "option2": "Bob", "answer": "2"}]
HELLASWAG = [
    {"activity_label": "Making", "ctx_a": " A [x] man [title] runs.", "ctx_b": "He ÉATS", "endings": ["a  [s] b", " c "], "label": "1"},
]
MC2 = [{"mc2_targets": {"choices": ["a", "b", "c"], "labels": [1, 0, 1]}}]

CALLS = [
    ("hellaswag/utils", ["process_docs"], HELLASWAG),
    ("winogrande/preprocess_winogrande", ["doc_to_text", "doc_to_target", "doc_to_choice"], WINOGRANDE),
    ("xwinograd/utils", ["doc_to_text", "doc_to_target", "doc_to_choice"], WINOGRANDE),
    ("super_glue/copa/utils", ["doc_to_text", "doc_to_target", "doc_to_choice"], COPA),
    ("xcopa/utils", ["doc_to_choice"] + [f"doc_to_text_{one}" for one in "et ht it id qu sw zh ta th tr vi".split()], COPA),
    ("super_glue/wsc/preprocess_wsc", ["default_doc_to_text"], WSC),
    ("glue/mnli/utils", ["doc_to_text"], MNLI),
    ("race/preprocess_race", ["doc_to_text", "doc_to_target", "doc_to_choice"], RACE),
    ("logiqa/utils_logiqa", ["doc_to_text", "doc_to_target"], LOGIQA),
    ("medmcqa/utils_medmcqa", ["doc_to_text"], MEDMCQA),
    ("medqa/preprocess_medqa", ["doc_to_text", "doc_to_target"], MEDQA),
    ("pubmedqa/preprocess_pubmedqa", ["doc_to_text"], PUBMED),
    ("mathqa/utils", ["doc_to_choice"], MATH),
    ("arithmetic/utils", ["process_docs"], ARITHMETIC),
    ("leaderboard/musr/utils", ["doc_to_text", "doc_to_choice"], MUSR),
    (
        "mmlu_pro/utils",
        ["doc_to_text", "fewshot_to_text", "fewshot_to_target", "process_law", "process_computer_science"],
        MMLU,
    ),
    ("leaderboard/mmlu_pro/utils", ["doc_to_text", "doc_to_choice"], MMLU),
    ("gpqa/zeroshot/utils", ["process_docs"], GPQA),
    ("gpqa/n_shot/utils", ["process_docs"], GPQA),
    ("gpqa/cot_zeroshot/utils", ["process_docs"], GPQA),
    ("gpqa/cot_n_shot/utils", ["process_docs"], GPQA),
    ("gpqa/generative/utils", ["process_docs"], GPQA),
    ("leaderboard/gpqa/utils", ["process_docs"], GPQA),
    ("truthfulqa/utils", ["process_results_mc2"], MC2),
    ("wikitext/preprocess_wikitext", ["wikitext_detokenizer", "process_results"], [{"page": one} for one in PAGES]),
    ("c4/preprocess_c4", ["c4_detokenizer", "process_results"], [{"text": one} for one in PAGES]),
]  # fmt: skip


def load(module):
    path = HARNESS / f"{module}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def result_of(function, name, row):
    if name == "process_results_mc2":
        return function(row, [(-1.5, False), (-0.25, True), (-3.0, False)])
    return function(row, [-12.5]) if name == "process_results" else function(row)


def call(module, name, rows):
    function = getattr(load(module), name)
    random.seed(7)
    if name.startswith("process_") and not name.startswith("process_results"):
        results = list(function(datasets.Dataset.from_list(rows)))
    else:
        results = [result_of(function, name, row) for row in rows]
    return {"module": module, "name": name, "rows": rows, "results": results}


os.environ["DISABLE_MULTIPROC"] = "1"
dice = random.Random(5)
numbers = [dice.gauss(-3, 1) for _ in range(60)]
pairs = [[dice.choice([0, 1, 1]), dice.choice([0, 1])] for _ in range(60)]
many = [[dice.randrange(3), dice.randrange(4)] for _ in range(40)]
sentences = [
    ["The cat sat on the mat, at 3.5 o'clock.", "The cat sat on a mat at 3.5 o'clock!"],
    ["\"Hello,\" he said & left (quickly).", "&quot;Hello,&quot; he said &amp; left quickly"],
    ["Größe 12-14 Meter; 1,000 Stück…", "Größe 12 - 14 Meter, 1,000 Stücke…"],
    ["一二三 四五六。", "一二四 四五。"],
    ["a b", ""],
    ["The dog -\nran away  quickly <skipped>now", "The dog ran away quickly now "],
    ["One (two) [three] {four}.", "One two three, four."],
]
AGGREGATIONS = [
    ("mean", numbers), ("median", numbers), ("nanmean", numbers), ("perplexity", numbers), ("f1", pairs),
    ("matthews_corrcoef", pairs), ("matthews_corrcoef", many), ("weighted_perplexity", [[n, 3] for n in numbers]),
    ("bits_per_byte", [[n, 3] for n in numbers]), ("bleu", sentences), ("chrf", sentences), ("chrf++", sentences),
    ("bleu", sentences[3:5]), ("chrf", sentences[4:5]), ("brier_score", [[g, [0.2, 0.3, 0.5]] for g, _ in many]),
]  # fmt: skip


def aggregation(name, items):
    function = get_aggregation(name)
    error = stderr_for_metric(function, 100)
    value = function(items)
    return {"name": name, "items": items, "value": value, "stderr": error(items) if error and len(items) > 1 else None}


TEXTS = [
    "So the answer is (B).", "The answer is A", "\nAnswer: $1,234.50\n#### 1,234.50.", "no number", "", "(a) cat or (b) Dog: C",
    "PER: Ann, Bob $$ location: Rome$ none\nORG: None $", "[('Ann', 'NOUN'), ('runs', 'VERB')]", "ÄPFEL – ١٢٣ x\u00a0y", "it is the dog's\nbone. d",
]  # fmt: skip
DOC = {"choices": ["cat", "the dog's bone", "Äpfel", "x.y"]}
MULTI = {"function": "multi_choice_regex", "regex_pattern": r"(\([A-Z]\))", "group_select": 0}
FILTERS = [
    [{"function": "regex", "regex_pattern": r"answer is \(?([ABCDEFGHIJ])\)?"}],
    [{"function": "regex"}],
    [{"function": "regex", "regex_pattern": r"(-?[$0-9.,]{2,})|(-?[0-9]+)", "group_select": -1}],
    [{"function": "regex", "regex_pattern": r"(?i)the ANSWER is\s+(\w)\b", "fallback": "none"}],
    [{"function": "regex", "regex_pattern": r"(?s)^(.*)\Z"}],
    [{"function": "regex", "regex_pattern": r"(?<=answer is )(.*)(?=.)"}],
    [{"function": "regex", "regex_pattern": r"[\d,.]+$|[^\W\d_]+"}],
    [{"function": "regex", "regex_pattern": r"(?P<q>['\"(])(.*?)(?P=q)"}],
    [{"function": "regex", "regex_pattern": r"(\w)\1|\bx\b"}],
    [{"function": "regex", "regex_pattern": r"[^\s\]-]{3,}", "group_select": -1}],
    [{"function": "regex", "regex_pattern": r"(?x) [a-c] \  # a letter\n | \# "}],
    [{"function": "regex_pos"}], [{"function": "format_span"}], [{"function": "lowercase"}], [{"function": "uppercase"}],
    [{"function": "remove_whitespace"}],
    [{"function": "lowercase"}, {"function": "map", "mapping_dict": {"no number": "0"}, "default_value": "?"}],
    [MULTI],
    [{**MULTI, "ignore_case": True, "ignore_punctuation": True, "fallback": "?"}],
    [{**MULTI, "ignore_case": True, "regexes_to_ignore": [r"\s+", "the"], "group_select": -1}],
    [{"function": "majority_vote"}, {"function": "take_first"}],
    [{"function": "take_first_k", "k": 2}],
]  # fmt: skip
MATCHES = [
    ["The Dog, 12.", "the dog 3", {"ignore_case": True, "ignore_punctuation": True, "ignore_numbers": True}],
    ["$1,000.", "1000", {"regexes_to_ignore": [",", r"\$", r"\.$"]}],
    ["a b", "a  b", {}], ["x #### 5", "5", {"regexes_to_ignore": ["(?s).*#### "]}], ["Äpfel", "äPFEL", {"ignore_case": True}],
]  # fmt: skip


def filtered(functions):
    parts = [[one["function"], {key: value for key, value in one.items() if key != "function"}] for one in functions]
    ensemble = build_filter_ensemble("it", parts)
    responses = [[text] for text in TEXTS] + [["a", "b", "b", "a"], ["c", "d"]]
    if functions[0]["function"] in ("take_first_k", "majority_vote"):
        responses = responses[-2:]
    instances = [Instance("generate_until", DOC, ("",), 0, resps=list(one)) for one in responses]
    ensemble.apply(instances)
    return {"functions": functions, "responses": responses, "results": [one.filtered_resps["it"] for one in instances]}


def matched(prediction, reference, options):
    score = exact_match_hf_evaluate(predictions=[prediction], references=[reference], **options)["exact_match"]
    return {"prediction": prediction, "reference": reference, "options": options, "score": float(score)}


if __name__ == "__main__":
    chains = {"doc": DOC, "chains": [filtered(one) for one in FILTERS], "matches": [matched(*one) for one in MATCHES]}
    (FIXTURES / "filters.json").write_text(json.dumps(chains, ensure_ascii=False) + "\n")
    figures = [aggregation(*one) for one in AGGREGATIONS]
    (FIXTURES / "aggregations.json").write_text(json.dumps(figures, ensure_ascii=False, default=float) + "\n")
    calls = [call(module, name, rows) for module, names, rows in CALLS for name in names]
    text = json.dumps(calls, ensure_ascii=False, default=float, separators=(",", ":"))
    (FIXTURES / "ports.json").write_text(text + "\n")

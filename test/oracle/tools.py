"""Tool-call fixtures: what mlx-lm's parsers make of texts, right and wrong, how it tells a checkpoint's format and
thinking markers, and how it cuts an answer into its parts.

    python tools.py [FILE COUNT]    write the fixtures; with FILE, COUNT random cases a format into FILE instead
"""

import importlib
import itertools
import json
import random
import re
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

from mlx_lm.chat_templates.deepseek_v32 import apply_chat_template
from mlx_lm.chat_templates.muse_spark import RESPONSE_FORMAT
from mlx_lm.generate import TextStateMachine, make_text_state_machine
from mlx_lm.tokenizer_utils import _infer_structural_markers, load

FIXTURES = Path(__file__).parent.parent / "fixtures"

FORMATS = ["function_gemma", "gemma4", "glm47", "json_tools", "kimi_k2", "kimi_k3", "laguna", "longcat", "minicpm5",
           "minimax_m2", "mistral", "muse_spark", "pythonic", "qwen3_coder"]  # fmt: skip
PARSERS = {name: importlib.import_module(f"mlx_lm.tool_parsers.{name}") for name in FORMATS}


def function(name, **properties):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


TYPES = ["string", "str", "text", "varchar", "enum", "integer", "int32", "uint8", "long", "number", "num", "float64",
         "boolean", "bool", "binary", "object", "array", "arr", "dict", "list", "null", "date"]  # fmt: skip
TOOLS = [
    function("f", **{f"{name}_": {"type": name} for name in TYPES}),
    function(
        "g",
        any={"anyOf": [{"type": "integer"}, {"type": "null"}, {"type": "string"}]},
        one={"oneOf": [{"type": "number"}, {"allOf": [{"type": "boolean"}]}]},
        listed={"type": ["Integer", "null", "boolean"]},
        numbers={"enum": [1, 2.5, None]},
        things={"enum": [True, "a", [], {}]},
        untyped={"description": "anything"},
        empty={},
        upper={"type": " STRING "},
        typed={"type": {"a": 1}},
    ),
    function("get_weather", city={"type": "string"}, days={"type": "integer"}, zip={"type": "string"}),
    {"type": "function", "function": {"name": "bare"}},
]

# Values as models write them, in JSON, in Python, in neither.
VALUES = [
    "1", "-7", "0", "007", "1.0", "-0.0", "2.5e3", "1e400", "1E-7", "123456789012345678901234567890", "0.1", "100000000000000000.0",
    "12345678901234567", "3.0", "1e16", "1.5e-5", "0x1F", "1_000", "1__0", "0b101", "0o17", "1.", ".5", "1j", "1+2j", "1 + 2", "+5", "--5",
    "-(3)", "１２", "٣", " 42 ", "4 2", "true", "True", "TRUE", "yes", "off", "None", "null", "NULL", "nil", " null ", "NaN", "-Infinity", "inf", "nan", "infinity",
    '"text"', "'text'", '"a\\nb"', '"\\u00e9\\ud83d\\ude00"', "\"\\ud800\"", "'it\\'s'", '"say \\"hi\\""', "'a' 'b'", "r'\\n'", "u'x'", "b'x'", "f'x'", "'''three'''", '"""t\nt"""',
    "'\\x41\\101\\u00e9\\U0001F600\\q'", "'\\x4'", "plain words", "Paris, France", "a=b", "a:b", "<b>bold</b>", "x < y && y > z", "1, 2", "1,", "()", "(1)", "(1,)", "(1, 'a')",
    "[]", "[1, 2, 3]", "[1, 2,]", "['a', \"b\"]", "[True, None]", "[true, null]", "[1, [2, [3]]]", "[1 2]", "[", "]", "{}", '{"a": 1}', "{'a': 1}", "{'a': 1,}", '{"a": {"b": [1, {"c": null}]}}',
    "{1: 2, 1.0: 3, True: 4}", "{'a': 1, 'a': 2}", '{"a": 1, "a": 2}', "{1, 2}", "{[]: 1}", "{None: 1, 2.5: 'x', False: 0}", "{'k': (1, 2)}", "{(1, 2): 3}", '{"a": tru}', '{"a" 1}', '{a: 1}', "{{'a': 1}}",
    '{"text": "brace } and { and \\" quote"}', "5 # note", "[1, # one\n 2]", "\n5", " 5", "\n 5", "5\n", "5\n6", "'a\nb'", '"a\nb"', '["a\tb"]', "", " ", "\n", "...", "set()", "dict()", "x", "é", "日本語", "👩‍👩‍👧", "ﬁ",
    "\u00a0x\u00a0", "\u2003", "\x1c7\x1c", "\ufeff1", "a\x00b", "C:\\dir\\new", "line one\nline two", "\\n", "$x", "%d", "&amp;", "&quot;q&quot;", "#", "`code`", "nested \"quotes\" and 'more'", "{\"a\": \"}\"}", "end.",
]  # fmt: skip
# What no format, or only a simple one, takes for a call.
STRAYS = ["", " ", "\n", "no call here", "f", "f()", "[]", "{}", "[{}]", "null", "1", '"f"', "f a=1", "call:f{", "{", '{"name": "f", "arguments": {}}', "[f()]", "f[ARGS]{}", ":0", "name>", "\ud800"]
NAMES = ["f", "g", "get_weather", "a.b", "do-it", "größe", "名", "f1", "bare", "other"]
KEYS = ["a", "city", "days", "zip", "x1", "any", "one", "listed", "numbers", "things", "untyped", "empty", "upper", "typed", "key with space", "clé", "k-k"]
KEYS += [f"{name}_" for name in TYPES]
NOISE = ["<", ">", "</", "/", "{", "}", "[", "]", "(", ")", '"', "'", ":", ",", "=", "\\", "\n", " ", "\t", "\u00a0", "\x85", "é", "😀", "0", "a", "_", "-", "|", "<|\"|>", "<escape>", "call:",
         "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<longcat_arg_key>", "</longcat_arg_value>", "<parameter=", "</parameter>", "<function=", "</function>", "<invoke name=", "</invoke>",
         "<parameter name=", "<param name=", "</param>", "<![CDATA[", "]]>", "name=", "<function ", "<atem:invoke name=\"", "</atem:invoke>", "<atem:parameter", "</atem:parameter>", "\">", "[ARGS]",
         "<|tool_call_begin|>", "<|tool_call_end|>", "<|tool_call_argument_begin|>", "functions.", ":0", "<|open|>", "<|close|>", "<|sep|>", "call", "argument", "json", " key=\"", " tool=\"x\"", " type=\"", "true", "None"]  # fmt: skip


def value(rng):
    return rng.choice(VALUES) if rng.random() < 0.9 else "".join(rng.choice(NOISE) for _ in range(rng.randrange(1, 5)))


def sane_json(rng, depth=0):
    """A value that json.dumps can write."""
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind < 3:
        return rng.choice(["", "Paris", "it's", 'say "hi"', "a\nb\tc", "é 日本 😀", "} {", "<b>", "\\", "1", "null", "</tool_call>"])
    if kind < 6:
        return rng.choice([0, 1, -5, 2.5, 1e20, 1.0, 12345678901234567890, True, False, None])
    if kind == 6:
        return [sane_json(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(KEYS): sane_json(rng, depth + 1) for _ in range(rng.randrange(4))}


def arguments(rng):
    """Names of arguments with their values as text."""
    return [
        (rng.choice(KEYS), json.dumps(sane_json(rng), ensure_ascii=rng.random() < 0.3) if rng.random() < 0.3 else value(rng))
        for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 5]))
    ]


def objects(rng):
    """Arguments as the text of a JSON object."""
    if rng.random() < 0.2:
        return value(rng)
    entries = {rng.choice(KEYS): sane_json(rng) for _ in range(rng.choice([0, 1, 2, 3]))}
    return json.dumps(entries, ensure_ascii=False) if rng.random() < 0.8 else repr(entries)


def quoted(rng, text):
    return rng.choice([f'"{text}"', f'"{text}"', f"'{text}'", text])


def gemma_value(rng, depth=0):
    kind = rng.randrange(8 if depth < 3 else 6)
    if kind < 3:
        return '<|"|>' + rng.choice(VALUES).replace('<|"|>', "") + '<|"|>'
    if kind < 6:
        return rng.choice(["1", "-2.5", "true", "null", "bare", "1e9", "\"quoted\"", ""])
    if kind == 6:
        return "[" + ",".join(gemma_value(rng, depth + 1) for _ in range(rng.randrange(3))) + "]"
    return "{" + ",".join(f"{rng.choice(KEYS)}:{gemma_value(rng, depth + 1)}" for _ in range(rng.randrange(3))) + "}"


def pythonic_value(rng):
    return rng.choice(VALUES) if rng.random() < 0.5 else repr(sane_json(rng)) if rng.random() < 0.5 else json.dumps(sane_json(rng))


def pairs(rng, tag):
    gap = rng.choice(["", "\n", "\\n", " "])
    name = rng.choice(NAMES) + rng.choice(["", "\n", " "])
    return name + "".join(
        f"<{tag}_key>{k}</{tag}_key>{gap}<{tag}_value>{v}</{tag}_value>{gap}" for k, v in arguments(rng)
    )


def json_call(rng):
    name, args = rng.choice(NAMES), objects(rng)
    return rng.choice(
        [
            f'{{"name": "{name}", "arguments": {args}}}',
            f'{{"name": "{name}", "arguments": {args}}}',
            f'[{{"name": "{name}", "arguments": {args}}}]',
            f'[{{"name": "{name}", "arguments": {args}, "id": "abc"}}, {{"name": "g", "arguments": {args}}}]',
            f'{{"name": "{name}", "arguments": {json.dumps(args)}}}',
            f'{{"function": "{name}", "arguments": {args}}}',
            f'{{"function": {{"name": "{name}", "arguments": {args}}}, "arguments": null}}',
            f'{{"tool": {{"name": "{name}", "arguments": {args}}}}}',
            f'{{"name": {{"name": "{name}", "arguments": {args}}}, "arguments": {{}}}}',
            f'{{"name": "{name}"}}',
            f'{{"arguments": {args}}}',
        ]
    )


def render(name, rng):
    """A call in a format, mostly right."""
    several = range(rng.choice([1, 1, 1, 2, 3]))
    between = rng.choice(["", "\n", " and ", ", "])
    match name:
        case "function_gemma":
            entries = [(k, rng.choice([v, f"<escape>{v}<escape>"])) for k, v in arguments(rng)]
            return between.join("call:" + rng.choice(NAMES) + "{" + ",".join(f"{k}:{v}" for k, v in entries) + "}" for _ in several)
        case "gemma4":
            def call():
                return "call:" + rng.choice(NAMES) + "{" + ",".join(f"{rng.choice(KEYS)}:{gemma_value(rng)}" for _ in range(rng.randrange(4))) + "}"

            return between.join(call() for _ in several)
        case "glm47" | "laguna":
            words = " ".join(f"{k}={quoted(rng, v)}" for k, v in arguments(rng))
            plain = rng.choice(NAMES) + rng.choice([" ", "\n", ""]) + rng.choice([words, words, objects(rng), value(rng)])
            return rng.choice([pairs(rng, "arg"), pairs(rng, "arg"), json_call(rng), plain])
        case "json_tools":
            return between + json_call(rng) + rng.choice(["", "\n"])
        case "kimi_k2":
            def call():
                return f"{rng.choice(['functions.', 'functions.', '', ' '])}{rng.choice(NAMES)}:{rng.randrange(12)}{rng.choice(['', ' '])}<|tool_call_argument_begin|>{rng.choice(['', ' '])}{objects(rng)}"

            calls = [call() for _ in several]
            return calls[0] if rng.random() < 0.3 else between.join(f"<|tool_call_begin|>{c}<|tool_call_end|>" for c in calls)
        case "kimi_k3":
            def call():
                entries = "".join(
                    f'<|open|>argument key="{k}" type="{rng.choice(["string", "number", "object", "x"])}"<|sep|>{v}<|close|>argument<|sep|>'
                    for k, v in arguments(rng)
                )
                body = entries if rng.random() < 0.6 else f'<|open|>json type="object"<|sep|>{objects(rng)}<|close|>json<|sep|>'
                return f'<|open|>call tool="{rng.choice(NAMES)}" index="1"<|sep|>{body}<|close|>call<|sep|>'

            return between.join(call() for _ in several)
        case "longcat":
            return rng.choice([pairs(rng, "longcat_arg"), pairs(rng, "longcat_arg"), json_call(rng)])
        case "minicpm5":
            def call():
                params = "".join(
                    f"<param name={quoted(rng, k)}>{rng.choice([v, f'<![CDATA[{v}]]>', f' <![CDATA[{v}]]> '])}</param>" for k, v in arguments(rng)
                )
                return f"<function name={quoted(rng, rng.choice(NAMES))}>{params}</function>"

            text = between.join(call() for _ in several)
            return text.removeprefix("<function name=") if rng.random() < 0.7 else text
        case "minimax_m2":
            def call():
                params = "".join(f"<parameter name={quoted(rng, k)}>{v}</parameter>\n" for k, v in arguments(rng))
                return f"<invoke name={quoted(rng, rng.choice(NAMES))}>\n{params}</invoke>"

            return between.join(call() for _ in several)
        case "mistral":
            if rng.random() < 0.3:
                return json_call(rng)
            return between.join(f"{rng.choice(NAMES)}{rng.choice(['', ' '])}[ARGS]{rng.choice(['', ' '])}{objects(rng)}" for _ in several)
        case "muse_spark":
            def call():
                params = "".join(f'<atem:parameter name="{k}">{v}</atem:parameter>\n' for k, v in arguments(rng))
                return f'<atem:invoke name="{rng.choice(NAMES)}">\n{params}</atem:invoke>'

            return between.join(call() for _ in several)
        case "pythonic":
            def call():
                return rng.choice(NAMES) + "(" + ", ".join(f"{rng.choice(KEYS)}={pythonic_value(rng)}" for _ in range(rng.randrange(4))) + ")"

            return rng.choice(["", "ok "]) + "[" + ", ".join(call() for _ in several) + "]" + rng.choice(["", "\n"])
        case "qwen3_coder":
            new = rng.choice(["\n", ""])
            params = "".join(f"<parameter={k}>{new}{v}{new}</parameter>\n" for k, v in arguments(rng))
            return between + f"<function={rng.choice(NAMES)}>{new}{params}</function>" + rng.choice(["", "\n", " "])


def mutate(text, rng):
    """The text with a few cuts, doublings and strays."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        i, j = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        j = min(j, i + rng.choice([1, 3, 12, 40]))
        kind = rng.randrange(4)
        if kind == 0:
            text = text[:i] + text[j:]
        elif kind == 1:
            text = text[:j] + text[i:j] + text[j:]
        elif kind == 2:
            text = text[:i] + rng.choice(NOISE) + text[i:]
        else:
            text = text[:i]
    return text


def well_formed(text):
    """JSON with half characters as escapes, as JavaScript writes them."""
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", joined)


def outcome(name, text, tools):
    """What the server would send: calls, or none of a malformed text, or nothing at all where it dies."""
    try:
        parsed = PARSERS[name].parse_tool_call(text, tools)
    except ValueError:
        return {"calls": None}
    except Exception:
        return {"dies": True}
    calls = []
    for call in parsed if isinstance(parsed, list) else [parsed]:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str) or "arguments" not in call:
            return {"dies": True}
        try:
            made = {"name": call["name"], "arguments": well_formed(json.dumps(call["arguments"], ensure_ascii=False))}
        except Exception:
            return {"dies": True}
        calls.append({"id": call["id"], **made} if isinstance(call.get("id"), str) and call["id"] else made)
    return {"calls": calls}


def case(name, text, with_tools):
    return {"format": name, "text": text, "tools": with_tools, **outcome(name, text, TOOLS if with_tools else None)}


def random_cases(name, count, seed):
    rng = random.Random(f"{name} {seed}")
    for i in range(count):
        text = render(name, rng)
        if i % 2:
            text = mutate(text, rng)
        yield case(name, text, rng.random() < 0.7)


# Calls as the models' templates show them.
MODELS_OWN = {
    "function_gemma": ["call:get_weather{city:<escape>Paris, France<escape>,days:3}", "call:f{}", "call:f{a:<escape>{}<escape>}",
                       "call:f{a:true,b:[1],c:<escape><escape>}"],
    "gemma4": ['call:get_weather{city:<|"|>Paris<|"|>,days:3}', 'call:f{a:{b:[1,{c:<|"|>}{<|"|>}],d:null}}call:g{}',
               'call:do-it{a:<|"|>say "hi"\n<|"|>,b:<|"|><|"|>}', 'call:f{a:<|"|>unfinished}call:g{b:1}'],
    "glm47": ["get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>zip</arg_key>\n<arg_value>75001</arg_value>",
              'get_weather {"city": 7, "days": "3"}', "get_weather city='Paris, France' days=3 zip=007", "get_weather", "get_weather\n{'days': 3}"],
    "json_tools": ['\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n', '{"name": "f", "arguments": {}}',
                   '[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {"a": [1.0, 12345678901234567890]}}]',
                   '{"name": "f", "arguments": {"a": "\\u00e9\\n"}, "id": "call_1"}', '{"name": "f", "arguments": "{}"}'],
    "kimi_k2": ['<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Paris"}<|tool_call_end|><|tool_call_begin|>functions.f:1<|tool_call_argument_begin|>{}<|tool_call_end|>',
                'functions.a.b:12 <|tool_call_argument_begin|> {"a": {"b": [1]}} ', "functions.:0<|tool_call_argument_begin|>{}", " :0<|tool_call_argument_begin|>{'a': True}"],
    "kimi_k3": ['<|open|>call tool="get_weather" index="1"<|sep|><|open|>argument key="city" type="string"<|sep|>Paris<|close|>argument<|sep|><|open|>argument key="days" type="number"<|sep|>3<|close|>argument<|sep|><|close|>call<|sep|>',
                '<|open|>call tool="f&quot;&amp;"<|sep|><|open|>json type="object"<|sep|>{"a": [1, {}]}<|close|>json<|sep|><|close|>call<|sep|>',
                '<|open|>call index="1"<|sep|><|close|>call<|sep|><|open|>call tool="g"<|sep|><|close|>call<|sep|>'],
    "longcat": ["get_weather\n<longcat_arg_key>city</longcat_arg_key>\n<longcat_arg_value>7</longcat_arg_value>\n<longcat_arg_key>days</longcat_arg_key>\n<longcat_arg_value>3</longcat_arg_value>\n",
                '{"name": "f", "arguments": {"a": 1}}'],
    "minicpm5": ['"get_weather"><param name="city">Paris</param><param name="days">3</param></function>',
                 '"f"><param name="text_"><![CDATA[a < b && "c"\n]]></param></function><function name="g"></function>', "f><param name=integer_>x</param>"],
    "minimax_m2": ['\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n<parameter name="days">3</parameter>\n</invoke>\n',
                   '<invoke name="g"><parameter name="any">none</parameter><parameter name="one">2.0</parameter></invoke><invoke name="g"><parameter name="things">{"a": \'b\'}</parameter></invoke>',
                   "<invoke name=></invoke>"],
    "mistral": ['get_weather[ARGS]{"city": "Paris", "days": 3}', 'f[ARGS]{"a": "}"}g[ARGS]{}', '[{"name": "f", "arguments": {"a": 1}, "id": "abcdef123"}, {"name": "g"}]',
                '[{"name": "f", "arguments": "{\\"a\\": 1}"}]', 'f[ARGS]{"a": '],
    "muse_spark": ['\n<atem:invoke name="get_weather">\n<atem:parameter name="city">Paris</atem:parameter><atem:parameter name="days">3</atem:parameter>\n</atem:invoke>\n',
                   '<atem:invoke name="f"><atem:parameter type="t" name="a b">x </atem:invoke>\n</atem:parameter></atem:invoke><atem:invoke name="g">'],
    "pythonic": ['[get_weather(city="Paris, France", days=3)]', "[f(), a.b(x=[{'k': true, 'n': None}], y=-1.5)]", "[do-it(a=1)]",
                 "[f(a='it\\'s', b=\"two\\nlines\", from=1)]", "[f(a=[1, 2], b=oops)]", "get_weather(city='Paris')"],
    "qwen3_coder": ["\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n",
                    "<function=f>\n<parameter=object_>\n{'a': True}\n</parameter>\n<parameter=integer_>\n3.0\n</parameter>\n<parameter=bool_>\nTrue\n</parameter>\n</function>",
                    "<function=f\n<parameter=text_\na>b\n</parameter>\n</function>", "<function=f><parameter=int32_>3.5</parameter></function>", "<function=f></function>"],
}  # fmt: skip

TEMPLATE_PIECES = ["<minimax:tool_call>", "<|tool_call>", "<tool_call|>", "<start_function_call>", "<longcat_tool_call>", "<arg_key>", "<|tool_list_start|>",
                   "<|tool_call_start|>", "<tool_call>\\n<function=", "<tool_call>\n<function=", "<|tool_calls_section_begin|>", '<function name="',
                   '<param name="', "[TOOL_CALLS]", "<atem:function_calls>", "<tool_call>", "tool_call.name", "plain"]  # fmt: skip
VOCABULARIES = [[], ["<think>", "</think>"], ["<longcat_think>", "</longcat_think>"], ["<|think:start|>", "<|think:end|>"], ["<|channel>", "<channel|>"],
                ["<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"], ["<|tool_call_start|>", "<|tool_call_end|>"], ["<think>", "<|channel>", "<channel|>"],
                ["<|open|>", "<|close|>", "<|sep|>"], ["<think>", "</think>", "<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"]]  # fmt: skip


def told():
    """What load() tells of checkpoints: configs, templates and tokens, each put on one small tokenizer."""
    rng = random.Random(5)
    configs = [{"chat_template": piece} for piece in TEMPLATE_PIECES]
    configs += [{"chat_template": " ".join(rng.sample(TEMPLATE_PIECES, rng.randrange(2, 5)))} for _ in range(20)]
    configs += [
        {"chat_template": [{"name": "default", "template": "[TOOL_CALLS]"}, {"name": "tool_use", "template": "<arg_key>"}]},
        {"tool_parser_type": "laguna", "chat_template": "[TOOL_CALLS]"},
        {"tool_parser_type": None, "chat_template": "[TOOL_CALLS]"},
    ]
    cases = [(config, []) for config in configs] + [({"chat_template": rng.choice(TEMPLATE_PIECES)}, v) for v in VOCABULARIES for _ in range(2)]
    for config, tokens in cases:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(FIXTURES / "text" / "byte-fallback" / "tokenizer.json", folder)
            config = {"tokenizer_class": "PreTrainedTokenizerFast", "extra_special_tokens": tokens, **config}
            (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config))
            tokenizer = load(Path(folder))
        yield {
            "config": config,
            "format": tokenizer.init_kwargs.get("tool_parser_type"),
            "start": tokenizer.tool_call_start,
            "end": tokenizer.tool_call_end,
            "thinking": [tokenizer.think_start, tokenizer.think_end] if tokenizer.has_thinking else None,
            "structural": list(tokenizer.structural_markers),
        }


THINKING = [None, ("<think>", "</think>"), ("<longcat_think>", "</longcat_think>"), ("<|think:start|>", "<|think:end|>"),
            ("<|channel>thought", "<channel|>"), ("<|open|>think<|sep|>", "<|close|>think<|sep|>")]  # fmt: skip
STRUCTURAL = _infer_structural_markers(SimpleNamespace(get_vocab=lambda: ["<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"]))


def answers():
    """Answers cut by the state machine of the server: their parts, one after another."""
    rng = random.Random(11)
    layouts = [None] * 5 + [RESPONSE_FORMAT]
    for _ in range(150):
        thinking, name, layout = rng.choice(THINKING), rng.choice([None, *FORMATS]), rng.choice(layouts)
        stop_words = rng.choice([[], [], ["STOP"], ["\n\n", "<"], ["</s>", "</"]])
        parser = PARSERS.get(name)
        tokenizer = SimpleNamespace(
            has_thinking=thinking is not None, think_start=thinking and thinking[0], think_end=thinking and thinking[1],
            has_tool_calling=name is not None, tool_call_start=parser and parser.tool_call_start, tool_call_end=parser and parser.tool_call_end,
            structural_markers=STRUCTURAL if thinking == THINKING[-1] else (),
            response_transitions=layout["transitions"] if layout else {},
        )  # fmt: skip
        machine = make_text_state_machine(tokenizer, stop_words)
        markers = [*(thinking or []), *([parser.tool_call_start, parser.tool_call_end] if parser else []), *stop_words, *tokenizer.structural_markers]
        markers += [marker for edges in tokenizer.response_transitions.values() for marker, _ in edges]
        pieces = []
        for _ in range(rng.randrange(1, 9)):
            kind = rng.randrange(6)
            if kind < 2 and markers:
                pieces.append(rng.choice(markers))
            elif kind == 2 and markers:
                marker = rng.choice(markers)
                pieces.append(marker[: rng.randrange(len(marker) + 1)])
            elif kind == 3 and name:
                pieces.append(parser.tool_call_start + render(name, rng) + parser.tool_call_end)
            else:
                pieces.append(rng.choice(["Hello", " world.\n", "a < b", "<<", "é😀", "x" * 9, "\n", " "]))
        text = "".join(pieces)
        initial = layout["initial_state"] if layout else rng.choice(["normal", "normal", "reasoning"]) if thinking else "normal"
        state, parts = TextStateMachine.split(machine.make_state(initial), text)
        state, held, last = TextStateMachine.flush(state)
        parts.append((last, held))
        runs = [[s, "".join(t for _, t in run)] for s, run in itertools.groupby(parts, key=lambda part: part[0])]
        yield {"thinking": thinking, "format": name, "layout": layout is not None, "structural": list(tokenizer.structural_markers),
               "stop_words": stop_words, "initial": initial, "text": text, "runs": runs, **served(runs, name)}  # fmt: skip


def served(runs, name):
    """What the server makes of the parts."""
    text, reasoning, calls, tool, previous = "", "", [], "", None
    for state, part in runs:
        if state == "reasoning":
            reasoning += part
        elif state == "tool":
            tool += part
        elif state == "normal":
            if previous == "tool":
                calls.append(tool)
                tool = ""
            text += part
        previous = state
    if previous == "tool" and tool:
        calls.append(tool)
    outcomes = [outcome(name, call, TOOLS) for call in calls]
    return {"content": text, "reasoning": reasoning, "calls": [outcome.get("calls") for outcome in outcomes], "dies": any("dies" in o for o in outcomes)}


QUESTION = {"role": "user", "content": "What is 2 + 2? é"}
ASKED = {
    "role": "assistant",
    "content": "I'll look.",
    "reasoning_content": "Two tools.",
    "tool_calls": [
        {"type": "function", "function": {"name": "f", "arguments": json.dumps({"text_": "a", "list_": [1.0, None, {"é": True}]}, ensure_ascii=False)}},
        {"type": "function", "function": {"name": "bare", "arguments": "{}"}},
    ],
}
RESULTS = [{"role": "tool", "content": "4"}, {"role": "tool", "content": "fünf"}]
DEEPSEEK = [
    [QUESTION],
    [{"role": "system", "content": "Be brief."}, QUESTION],
    [{"role": "system", "content": None, "tools": TOOLS[3:], "response_format": {"type": "json_object"}}, QUESTION, {"role": "assistant", "content": "4", "reasoning_content": "easy"}, QUESTION],
    [{"role": "system", "content": "x"}, QUESTION, ASKED, *RESULTS],
    [QUESTION, ASKED, *RESULTS, {"role": "assistant", "content": "4", "reasoning_content": "so"}],
    [QUESTION, ASKED, RESULTS[0]],
    [QUESTION, ASKED, *RESULTS, QUESTION],
    [{"role": "developer", "content": "Do it.", "response_format": {"a": [1, 2.5]}}],
    [QUESTION, {"role": "assistant", "content": "no thought"}],
    [QUESTION, RESULTS[0]],
    [QUESTION, ASKED, *RESULTS, *RESULTS],
    [{"role": "poet", "content": "x"}],
    [{"role": "developer", "content": ""}],
]


def deepseek():
    ways = [(1, None), (0, TOOLS[3:]), (2, None)]
    for messages, thinks, (opens, tools) in itertools.product(DEEPSEEK, [True, False], ways):
        arguments = {"add_generation_prompt": opens == 1, "continue_final_message": opens == 2}
        try:
            text = apply_chat_template(messages, enable_thinking=thinks, tools=tools, **arguments)
        except Exception:
            text = None
        yield {"messages": messages, "tools": tools, "enable_thinking": thinks, **arguments, "text": text}


def write(path, **parts):
    """A JSON object of lists, one item a line."""
    lists = [f'"{name}": [\n' + ",\n".join(json.dumps(item) for item in items) + "\n]" for name, items in parts.items()]
    path.write_text("{\n" + ",\n".join(lists) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        cases = [c for name in FORMATS for c in random_cases(name, int(sys.argv[2]), "more")]
        write(Path(sys.argv[1]), tools=TOOLS, cases=cases)
    else:
        cases = [case(name, text, True) for name in FORMATS for text in STRAYS + MODELS_OWN.get(name, [])]
        cases += [c for name in FORMATS if name != "laguna" for c in random_cases(name, 30, "fixture")]
        write(FIXTURES / "tools.json", tools=TOOLS, cases=cases, told=told(), answers=answers())
        write(FIXTURES / "text" / "deepseek-v32.json", chats=deepseek())

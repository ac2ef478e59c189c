"""The flags of every mlx_lm command, as its argparse parser has them: names, kind, default, choices."""

import argparse
import importlib
import json
import sys
from pathlib import Path

QUANTIZERS = ["awq", "dwq", "dynamic_quant", "gptq"]
COMMANDS = [
    "benchmark", "cache_prompt", "chat", "convert", "evaluate", "fuse", "generate", "lora", "manage", "perplexity",
    "server", "share", "upload", *QUANTIZERS,
]  # fmt: skip


class Parsed(Exception):
    """Raised in place of parsing, with the parser."""


def stop(parser, *_):
    raise Parsed(parser)


def parser_of(command):
    module = importlib.import_module(f"mlx_lm.quant.{command}" if command in QUANTIZERS else f"mlx_lm.{command}")
    try:
        module.main()
    except Parsed as parsed:
        return parsed.args[0]
    raise SystemExit(f"{command} parses no arguments")


def kind_of(action):
    """What the value is. A converting function goes by its name."""
    if isinstance(action, argparse.BooleanOptionalAction):
        return "yes or no"
    if action.nargs == 0:
        return "switch"
    if action.nargs in ("+", "*"):
        return "list"
    names = {"loads": "json", "<lambda>": "function"}
    name = getattr(action.type, "__name__", None) or "str"
    return names.get(name, name)


def flag(action):
    default = action.default
    facts = {"names": action.option_strings or [action.dest], "kind": kind_of(action)}
    if default is not None and default is not False:
        facts["default"] = list(default) if isinstance(default, tuple) else default
    if action.choices is not None:
        facts["choices"] = list(action.choices)
    if action.required:
        facts["required"] = True
    return facts


argparse.ArgumentParser.parse_args = argparse.ArgumentParser.parse_known_args = stop
sys.argv = ["mlx_lm"]
flags = {
    command: [flag(a) for a in parser_of(command)._actions if not isinstance(a, argparse._HelpAction)]
    for command in COMMANDS
}
print(sum(map(len, flags.values())), "flags")
path = Path(__file__).parent.parent / "fixtures/flags.json"
lines = [
    f" {json.dumps(command)}: [\n  " + ",\n  ".join(json.dumps(one) for one in listed) + "\n ]"
    for command, listed in sorted(flags.items())
]
path.write_text("{\n" + ",\n".join(lines) + "\n}\n")

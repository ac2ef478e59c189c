/** What `mlxlm help TOPIC` tells: on a terminal, as a man page, as a page of the docs. */
import { allowedWords, listedVariables, type Variable } from "../environment";
import { ExitCode } from "../errors";

export interface Entries {
  entries: readonly (readonly [name: string, meaning: string])[];
}

/** A paragraph, names with their meanings, or command lines. */
export type Block = string | Entries | { examples: readonly string[] };

export interface Topic {
  name: string;
  /** One line for the list of topics. */
  summary: string;
  blocks: readonly Block[];
}

const meanings: Readonly<Record<keyof typeof ExitCode, string>> = {
  ok: "done",
  failure: "it failed, or doctor found a fault",
  usage: "the command line was wrong, or asks for what is not available yet",
  notFound: "not found, or a model type that is not supported",
  auth: "the repo is gated or needs a token",
  resources: "out of memory or disk",
  interrupted: "interrupted by Ctrl-C",
};

/** Exit codes and what they mean. */
export const exitCodes: readonly (readonly [code: string, meaning: string])[] = Object.entries(meanings).map(
  ([name, meaning]) => [String(ExitCode[name as keyof typeof ExitCode]), meaning],
);

/** "threads of the CPU kernels, at most 256; a whole number, 1 or more (the cores that the process may use)" */
export function variableInWords(variable: Variable): string {
  const allowed = allowedWords(variable);
  const standard = variable.standard === "" ? "" : ` (${variable.standard})`;
  return `${variable.meaning}${allowed === "" ? "" : `; ${allowed}`}${standard}`;
}

const variablesFrom = (...from: readonly Variable["from"][]): Entries => ({
  entries: listedVariables().flatMap(([name, variable]) =>
    from.includes(variable.from) ? [[name, variableInWords(variable)] as const] : [],
  ),
});

export const topics: readonly Topic[] = [
  {
    name: "environment",
    summary: "the environment variables that mlxlm reads",
    blocks: [
      "The value in brackets holds where a variable is not set. A value that is not allowed is an error.",
      "mlxlm's own:",
      variablesFrom("mlxlm"),
      "Of the Hugging Face hub, as Python's huggingface_hub has them:",
      variablesFrom("huggingface_hub"),
      "Of other programs whose models mlxlm reads:",
      variablesFrom("Ollama"),
      "Of the system, and of what mlxlm stands on:",
      variablesFrom("system", "MLX"),
      "mlxlm doctor shows those that are set.",
    ],
  },
  {
    name: "exit-codes",
    summary: "what mlxlm's exit codes mean",
    blocks: [{ entries: exitCodes }],
  },
  {
    name: "json",
    summary: "output for programs",
    blocks: [
      "With --json, stdout has JSON only. A command that does one thing prints one object. Long work prints one object a line; its type says what it is.",
      "Field names are mlx-lm's where it has such a figure. Sizes are in bytes, times in seconds.",
      'An error is an object on stderr, {"error": {"code", "message", "hint"}}; the exit code is the same as code.',
      "Warnings stay lines on stderr. There are no bars and no questions: what would ask takes --yes.",
      {
        examples: [
          'mlxlm generate demo "What is 27 + 58?" --json',
          "mlxlm models list --json",
          "mlxlm lora --train --model demo --data ./my-data --json",
        ],
      },
    ],
  },
  {
    name: "models",
    summary: "how a model is named, and where it comes from",
    blocks: [
      "Where a command takes a model, it may be:",
      {
        entries: [
          ["demo", "the small model inside mlxlm: no network, no folder"],
          ["./my-model", "a folder with config.json and *.safetensors, as mlx-lm and Hugging Face have them"],
          ["./model.gguf", "a GGUF file, or a folder that holds only one"],
          [
            "mlx-community/Qwen3-4B-4bit",
            "a repo of the Hugging Face hub: downloaded once, into the cache that Python uses too",
          ],
          ["hf:OWNER/NAME:Q4_K_M", "one GGUF file of a repo, by its quantization or its name"],
          ["ollama:NAME", "a model that ollama has downloaded, with its tag where it has one: ollama:llama3.2:3b"],
          ["lmstudio:PUBLISHER/MODEL", "a model that LM Studio has downloaded"],
        ],
      },
      "A folder of that name goes before a repo. An interrupted download goes on where it was.",
      "Before a large download, models fit says whether it fits this machine. models arch lists the model types that run.",
      {
        examples: [
          "mlxlm models fit mlx-community/Qwen3-4B-4bit",
          "mlxlm models list",
          "mlxlm models arch qwen",
          "mlxlm models rm mlx-community/Qwen3-4B-4bit",
        ],
      },
    ],
  },
  {
    name: "paths",
    summary: "where mlxlm keeps its files",
    blocks: [
      {
        entries: [
          ["models, datasets", "HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub; shared with Python"],
          ["the hub's token", "HF_TOKEN, else the file HF_TOKEN_PATH, else HF_HOME/token"],
          [
            "native libraries",
            "XDG_CACHE_HOME/mlxlm, else ~/.cache/mlxlm (macOS: ~/Library/Caches/mlxlm); unpacked at the first start",
          ],
          ["measurements", "bandwidth.json there: how fast models fit found that memory is read"],
          ["the chat's history", "XDG_STATE_HOME/mlxlm, else ~/.local/state/mlxlm"],
          [
            "what you make",
            "where the flag says: --mlx-path, --adapter-path, --save-path, --output-dir, below the current folder",
          ],
        ],
      },
      "mlxlm paths shows them with their sizes; mlxlm paths --clean removes what older builds unpacked.",
      "mlxlm reads no .env, bunfig.toml or package.json of the folder where it is started.",
    ],
  },
];

export const topicNamed = (name: string): Topic | undefined => topics.find((topic) => topic.name === name);

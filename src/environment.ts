/**
 * Every environment variable that mlxlm reads, in TypeScript and in native code: one table, from which help and docs
 * print, and by which a start checks what the user set.
 */
import { ExitCode, UserError } from "./errors";
import { neededHome } from "./home";
import { nearest } from "./nearest";

/** What a variable may say; anything else is an error. */
interface Allowed {
  words: string;
  allows(text: string): boolean;
}

export interface Variable {
  /** What it does, for help and docs. */
  meaning: string;
  /** What holds where it is not set, or is empty. */
  standard: string;
  /** Absent where any text will do, or where the program that the variable comes from is as lenient. */
  allowed?: Allowed;
  /** Who defines it: its form is theirs. */
  from: "mlxlm" | "huggingface_hub" | "Ollama" | "system" | "MLX";
  /** Who reads it; "library": Bun, MLX or what they stand on. */
  readBy: "typescript" | "native" | "library";
  /** What mlxlm sets it to unless the user did. */
  set?: string;
}

function oneOf(...values: string[]): Allowed {
  return { words: values.join(", ").replace(/, (?=[^,]*$)/, " or "), allows: (text) => values.includes(text) };
}

const onOrOff = oneOf("0", "1");

export const variables = {
  MLXLM_NATIVE: {
    meaning: "the folder whose lib/ holds the native library, in place of the built-in one",
    standard: "the built-in one",
    from: "mlxlm",
    readBy: "typescript",
  },
  MLXLM_THREADS: {
    meaning: "threads of the CPU kernels, at most 256",
    standard: "the cores that the process may use",
    allowed: { words: "a whole number, 1 or more", allows: (text) => /^[1-9]\d*$/.test(text) },
    from: "mlxlm",
    readBy: "native",
  },
  MLXLM_CPU_KERNELS: {
    meaning: "0 turns mlxlm's CPU kernels off: slower, with the bits that Python's mlx-lm gives",
    standard: "1",
    allowed: onOrOff,
    from: "mlxlm",
    readBy: "native",
  },
  MLXLM_CPU_ISA: {
    meaning: "the most that the CPU kernels use of a processor",
    standard: "all that it has",
    allowed: oneOf("plain", "avx2", "avx512", "avx512_bf16"),
    from: "mlxlm",
    readBy: "native",
  },
  MLXLM_CUDA_KERNELS: {
    meaning: "0 turns mlxlm's CUDA kernels off",
    standard: "1",
    allowed: onOrOff,
    from: "mlxlm",
    readBy: "native",
  },
  MLXLM_CUDA_LIBRARIES: {
    meaning: "more folders, divided by colons, in which NVIDIA's libraries are looked for",
    standard: "",
    from: "mlxlm",
    readBy: "typescript",
  },
  MLXLM_CUDA_CACHE: {
    meaning: "the folder in which compiled CUDA kernels are kept",
    standard: "beside the unpacked libraries",
    from: "mlxlm",
    readBy: "native",
  },
  MLXLM_COMPILE: {
    meaning: "1 fuses operations by MLX's compiler on the CPU too, which needs g++; 0 nowhere",
    standard: "on a GPU only",
    allowed: onOrOff,
    from: "mlxlm",
    readBy: "typescript",
  },
  MLXLM_API_KEY: {
    meaning: "the key that mlxlm server asks its clients for, as --api-key says it",
    standard: "none",
    from: "mlxlm",
    readBy: "typescript",
  },
  MLXLM_USE_MODELSCOPE: {
    meaning: "as in mlx-lm; mlxlm takes no models from ModelScope, and says so where this is true",
    standard: "false",
    allowed: { words: "true or false", allows: (text) => /^(true|false)$/i.test(text) },
    from: "mlxlm",
    readBy: "typescript",
  },
  MLXLM_DISTRIBUTED: {
    meaning: "what connects the processes of a group; mlxlm launch sets it",
    standard: "tcp where MLX_HOSTFILE is set, else what MLX finds",
    allowed: oneOf("tcp", "ring", "nccl", "jaccl", "mpi"),
    from: "mlxlm",
    readBy: "typescript",
  },
  MLXLM_PEER_MEMORY: {
    meaning: "0 has GPUs of one host sum by NCCL only, not through each other's memory",
    standard: "1",
    allowed: onOrOff,
    from: "mlxlm",
    readBy: "typescript",
  },
  MLXLM_GROUP_KEY: {
    meaning: "what processes of a group must say to each other, at most 64 letters; mlxlm launch makes one",
    standard: "",
    from: "mlxlm",
    readBy: "typescript",
  },
  MLXLM_LAST_WORDS: {
    meaning: "a file for the error that a process of a group ends with; mlxlm launch sets it",
    standard: "",
    from: "mlxlm",
    readBy: "typescript",
  },

  HF_TOKEN: {
    meaning: "the access token for gated and private repositories",
    standard: "what a login left in HF_TOKEN_PATH",
    from: "huggingface_hub",
    readBy: "typescript",
  },
  HUGGING_FACE_HUB_TOKEN: {
    meaning: "the older name of HF_TOKEN",
    standard: "",
    from: "huggingface_hub",
    readBy: "typescript",
  },
  HF_TOKEN_PATH: {
    meaning: "the file with the access token of a login",
    standard: "HF_HOME/token",
    from: "huggingface_hub",
    readBy: "typescript",
  },
  HF_HOME: {
    meaning: "the hub's folder",
    standard: "XDG_CACHE_HOME/huggingface",
    from: "huggingface_hub",
    readBy: "typescript",
  },
  HF_HUB_CACHE: {
    meaning: "the cache of models and datasets, shared with Python",
    standard: "HF_HOME/hub",
    from: "huggingface_hub",
    readBy: "typescript",
  },
  HUGGINGFACE_HUB_CACHE: {
    meaning: "the older name of HF_HUB_CACHE",
    standard: "",
    from: "huggingface_hub",
    readBy: "typescript",
  },
  OLLAMA_MODELS: {
    meaning: "the folder of Ollama's models, for names that begin with ollama:",
    standard: "~/.ollama/models",
    from: "Ollama",
    readBy: "typescript",
  },
  HF_ENDPOINT: {
    meaning: "the hub's address",
    standard: "https://huggingface.co",
    from: "huggingface_hub",
    readBy: "typescript",
  },
  HF_HUB_OFFLINE: {
    meaning: "1 uses only what is in the cache",
    standard: "0",
    from: "huggingface_hub",
    readBy: "typescript",
  },
  HF_HUB_DOWNLOAD_TIMEOUT: {
    meaning: "seconds without a byte after which a connection is given up",
    standard: "30",
    from: "huggingface_hub",
    readBy: "typescript",
  },
  HF_HUB_DISABLE_XET: {
    meaning: "1 downloads and uploads without the hub's Xet storage",
    standard: "0",
    from: "huggingface_hub",
    readBy: "typescript",
  },

  XDG_CACHE_HOME: {
    meaning: "the folder of caches; mlxlm unpacks its libraries below it",
    standard: "~/.cache",
    from: "system",
    readBy: "typescript",
  },
  XDG_STATE_HOME: {
    meaning: "the folder of what programs remember; the chat's history lies below it",
    standard: "~/.local/state",
    from: "system",
    readBy: "typescript",
  },
  HOME: {
    meaning: "the user's own folder, written ~ in this list",
    standard: "what the system's list of users says",
    from: "system",
    readBy: "library",
  },
  TMPDIR: {
    meaning: "the folder of temporary files; mlxlm unpacks its libraries there where the cache can't be written",
    standard: "/tmp",
    from: "system",
    readBy: "library",
  },
  NO_COLOR: { meaning: "any text turns colours off", standard: "", from: "system", readBy: "typescript" },
  FORCE_COLOR: {
    meaning: "1 shows colours in a pipe too, 0 never",
    standard: "on a terminal only",
    from: "system",
    readBy: "typescript",
  },
  TERM: {
    meaning: "dumb: no colours, bars or cursor movements",
    standard: "",
    from: "system",
    readBy: "typescript",
  },
  CI: { meaning: "any text turns progress bars off", standard: "", from: "system", readBy: "typescript" },
  PATH: {
    meaning:
      "where an installed lm-evaluation-harness, and the Python whose packages hold NVIDIA's libraries, are looked for",
    standard: "",
    from: "system",
    readBy: "typescript",
  },
  VIRTUAL_ENV: {
    meaning: "a Python environment in which lm-evaluation-harness and NVIDIA's libraries are looked for",
    standard: "",
    from: "system",
    readBy: "typescript",
  },
  CONDA_PREFIX: {
    meaning: "a Conda environment in which lm-evaluation-harness and NVIDIA's libraries are looked for",
    standard: "",
    from: "system",
    readBy: "typescript",
  },

  CUDA_HOME: {
    meaning: "the folder of CUDA's toolkit, whose headers kernels are compiled with",
    standard: "/usr/local/cuda, or what NVIDIA's wheels brought",
    from: "system",
    readBy: "typescript",
  },
  CUDA_PATH: {
    meaning: "another name of CUDA_HOME",
    standard: "",
    from: "system",
    readBy: "typescript",
  },
  MLX_RANK: {
    meaning: "the number of this process in its group; launchers set it",
    standard: "no group",
    from: "MLX",
    readBy: "typescript",
  },
  MLX_HOSTFILE: {
    meaning: "a JSON file with a list of addresses (IP:PORT) for each process of the group; launchers set it",
    standard: "no group",
    from: "MLX",
    readBy: "typescript",
  },
  MLX_WORLD_SIZE: {
    meaning: "how many processes the group has, for NCCL",
    standard: "no group",
    from: "MLX",
    readBy: "library",
  },
  NCCL_HOST_IP: {
    meaning: "the address of the group's first process, for NCCL",
    standard: "no group",
    from: "MLX",
    readBy: "library",
  },
  NCCL_PORT: {
    meaning: "the port of the group's first process, for NCCL",
    standard: "no group",
    from: "MLX",
    readBy: "library",
  },
  NCCL_SOCKET_IFNAME: {
    meaning: "the network that NCCL meets on; mlxlm launch names the loopback where all ranks are on one machine",
    standard: "NCCL's choice",
    from: "system",
    readBy: "typescript",
  },
  CUDA_VISIBLE_DEVICES: {
    meaning: "the GPUs that may be used, by number, with commas between; mlxlm launch gives each rank the next of them",
    standard: "all",
    from: "system",
    readBy: "typescript",
  },
  MLX_JACCL_COORDINATOR: {
    meaning: "the address (IP:PORT) of the group's first process, for JACCL",
    standard: "no group",
    from: "MLX",
    readBy: "library",
  },
  MLX_IBV_DEVICES: {
    meaning: "a JSON file with the RDMA devices between processes, for JACCL",
    standard: "no group",
    from: "MLX",
    readBy: "library",
  },
  MLX_JACCL_RING: {
    meaning: "any text has JACCL connect processes in a ring",
    standard: "each with each",
    from: "MLX",
    readBy: "library",
  },
  MLX_RING_VERBOSE: {
    meaning: "any text has MLX's ring tell how it connects",
    standard: "",
    from: "MLX",
    readBy: "library",
  },
  MLX_PTX_CACHE_DIR: {
    meaning: "the folder of MLX's own cache of CUDA kernels",
    standard: "off: MLXLM_CUDA_CACHE takes its place",
    from: "MLX",
    readBy: "library",
  },
  MLX_USE_CUDA_GRAPHS: {
    meaning: "0 has MLX launch CUDA's kernels one by one",
    standard: "1",
    from: "MLX",
    readBy: "library",
  },
  MLX_MAX_OPS_PER_BUFFER: {
    meaning: "after how many operations MLX launches a CUDA graph",
    standard: "MLX's own, 100 on an H200; 20 on ranks of NCCL that do not train",
    from: "MLX",
    readBy: "typescript",
  },
  MLX_CUDA_GRAPH_CACHE_SIZE: {
    meaning: "how many CUDA graphs MLX keeps; at MLX's own 400 a long run aborts",
    standard: "4000",
    set: "4000",
    from: "MLX",
    readBy: "library",
  },
  OPENBLAS_THREAD_TIMEOUT: {
    meaning:
      "for how many clock cycles, as a power of two, OpenBLAS's threads spin after a product; its own 20 ms take a core from what comes next",
    standard: "18",
    set: "18",
    from: "MLX",
    readBy: "library",
  },
} as const satisfies Record<string, Variable>;

export type VariableName = keyof typeof variables;

type Environment = Readonly<Record<string, string | undefined>>;

/** What a variable says; undefined where it is not set, or empty. */
export function environment(name: VariableName, env: Environment = process.env): string | undefined {
  return env[name] || undefined;
}

/** The table's entries. */
export function listedVariables(): [name: VariableName, variable: Variable][] {
  return Object.entries(variables) as [VariableName, Variable][];
}

/** What a variable may say, in words; empty where anything will do. */
export function allowedWords({ allowed }: Variable): string {
  return allowed?.words ?? "";
}

/**
 * Checks what the user set.
 * @returns a warning for each MLXLM_… that mlxlm does not know
 * @throws UserError for a value that is not allowed
 */
export function checkEnvironment(env: Environment = process.env): string[] {
  const [wrong] = wrongVariables(env);
  if (!wrong) return unknownVariables(env);
  throw new UserError(
    `the environment variable ${wrong} is ${JSON.stringify(env[wrong])}, but must be ${allowedWords(variables[wrong])}`,
    { code: ExitCode.usage, hint: `Correct it, or unset ${wrong}.` },
  );
}

/** Those whose values are not allowed. */
export function wrongVariables(env: Environment = process.env): VariableName[] {
  return listedVariables().flatMap(([name, { allowed }]) => {
    const text = environment(name, env);
    return text === undefined || !allowed || allowed.allows(text) ? [] : [name];
  });
}

/** What to say of each MLXLM_… that mlxlm does not know. */
export function unknownVariables(env: Environment = process.env): string[] {
  const ours = Object.keys(variables).filter((name) => name.startsWith("MLXLM_"));
  const unknown = Object.keys(env).filter((name) => name.startsWith("MLXLM_") && !ours.includes(name));
  return unknown.map((name) => {
    const [similar] = nearest(name, ours, 1);
    return `there is no environment variable ${name}${similar ? `: did you mean ${similar}?` : ""}`;
  });
}

/** A path with `~`, `$NAME` and `${NAME}` resolved: variables from a file have seen no shell. */
export function expandedPath(path: string, env: Environment = process.env): string {
  const home = path.replace(/^~(?=$|[\\/])/, () => neededHome());
  return home.replace(/\$(\w+|\{[^}]*\})/g, (all, name: string) => env[name.replace(/[{}]/g, "")] ?? all);
}

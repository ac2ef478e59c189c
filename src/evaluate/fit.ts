/** Whether a model fits this machine, before it is downloaded: the disk, the memory, at which context, and how fast. */
import { cast } from "../convert/cast";
import { contextLength } from "../convert/config";
import { openSource } from "../convert/source";
import { type WeightEntry, type WeightPlan, weightPlan } from "../convert/weight-plan";
import { demoFolder, demoName } from "../demo/folder";
import { ExitCode, UserError } from "../errors";
import { cacheGrowth } from "../generate/cache-room";
import { hubCache, isOffline } from "../hub/environment";
import { localModel } from "../hub/local-model";
import { checkRepoId } from "../hub/repo-id";
import { resolveModel } from "../hub/resolve";
import { cachedSnapshot } from "../hub/snapshot-state";
import type { JsonObject } from "../json-file";
import type { Dtype } from "../mlx";
import * as mx from "../mlx";
import { architectureOf, createModel } from "../models";
import { isOtherPart } from "../models/nested";
import { type Bandwidth, bandwidth } from "./bandwidth";

export interface Fit {
  name: string;
  source: "local" | "cache" | "hub";
  model_type: string | null;
  /** Models of this type run here. */
  supported: boolean;
  parameters: number;
  active_parameters: number;
  /** What a download takes, in bytes; null for a model that is here. */
  disk: { files: number; size: number; needed: number; free: number; folder: string; fits: boolean } | null;
  /** Bytes. */
  memory: { weights: number; working: number; available: number; device: string; fits: boolean };
  /** Tokens, and bytes of their cache; null for a type that does not run. */
  context: { limit: number | null; asked: number; largest: number; steps: ContextStep[] } | null;
  speed: { bytes_per_token: number; tokens_per_second: number; bandwidth: Bandwidth } | null;
  /** Disk, memory and the context that was asked for. */
  fits: boolean;
}

export interface ContextStep {
  tokens: number;
  bytes: number;
  fits: boolean;
}

export interface FitOptions {
  /** Tokens that are to fit; fewer where the model has no room for so many. */
  context?: number;
  signal?: AbortSignal;
  onWarning?: (warning: string) => void;
}

interface Looked {
  source: Fit["source"];
  config: JsonObject;
  tensors: ReadonlyMap<string, WeightEntry>;
  disk: Fit["disk"];
}

const usualContext = 4096;

/** Prompts are read in chunks of so many tokens. */
const chunk = 2048;

/** Tokens in the cache of a short conversation. */
const spoken = 512;

/** The largest context that is looked for, where a configuration names none. */
const longestContext = 2 ** 20;

/** @throws UserError where there is no such model, or it cannot be looked at */
export async function fitModel(name: string, options: FitOptions = {}): Promise<Fit> {
  const { source, config, tensors, disk } = await look(name, options);
  // A type that is not supported is told below.
  const { seesImages = false } = await architectureOf(config).catch(() => ({ seesImages: false }));
  const plan = weightPlan(tensors, config, seesImages && config.vision_config ? () => false : isOtherPart);
  const working = workingBytes(config);
  const { available, device } = memoryThere();
  const room = available - plan.resident - working;
  const modelType = typeof config.model_type === "string" ? config.model_type : null;
  const growth = await growthOf(config, name, tensors);
  const context = growth && contextFit(growth, room, contextLength(config), options.context);
  const memoryFits = room >= 0;
  const asked = context?.steps.find(({ tokens }) => tokens === context.asked);
  return {
    name,
    source,
    model_type: modelType,
    supported: growth !== null,
    parameters: plan.parameters,
    active_parameters: Math.round(plan.activeParameters),
    disk,
    memory: { weights: plan.resident, working, available, device, fits: memoryFits },
    context,
    speed: growth && memoryFits ? await speedOf(plan, growth(spoken)) : null,
    fits: growth !== null && (disk?.fits ?? true) && memoryFits && (asked?.fits ?? true),
  };
}

async function look(name: string, options: FitOptions): Promise<Looked> {
  const local = name === demoName ? demoFolder() : await localModel(name);
  if (local !== null) return { source: "local", disk: null, ...(await lookAt(local)) };
  if (name.startsWith("hf:")) return lookAtGguf(name);
  checkRepoId(name);
  const snapshot = cachedSnapshot(hubCache(), name);
  if (snapshot !== null) return { source: "cache", disk: null, ...(await lookAt(snapshot)) };
  if (isOffline()) {
    throw new UserError(`${name} is not in the cache, and the network is not to be used`, {
      code: ExitCode.notFound,
      hint: "Unset HF_HUB_OFFLINE to ask the hub about it.",
    });
  }
  const { freeForCache, peekModel } = await import("../hub/peek");
  const { size, files, missing, config, tensors } = await peekModel(name, {
    signal: options.signal,
    onWait: options.onWarning,
  });
  const { cache: folder, free } = await freeForCache();
  const entries = [...tensors].map(
    ([tensor, { dtype, shape, start, end }]) => [tensor, { dtype, shape, bytes: end - start }] as const,
  );
  return {
    source: "hub",
    config,
    tensors: new Map(entries),
    disk: { files, size, needed: missing, free, folder, fits: free >= missing },
  };
}

/** One GGUF file of a repo, where the cache has it. */
async function lookAtGguf(name: string): Promise<Looked> {
  const found = await resolveModel(name, { offline: true }).catch(() => null);
  if (found) return { source: "cache", disk: null, ...(await lookAt(found.path)) };
  throw new UserError(`${name} is not in the cache, and a GGUF file cannot be looked at before it is downloaded`, {
    code: ExitCode.notFound,
    hint: "The page of its repo says how large it is. Repos of safetensors can be looked at.",
  });
}

/** A folder or a GGUF file. */
async function lookAt(path: string): Promise<Pick<Looked, "config" | "tensors">> {
  const source = await openSource(path);
  return { config: source.config, tensors: await source.entries() };
}

/**
 * Bytes that reading a chunk of a prompt takes beside weights and cache, by the widths of a block. The factors are
 * measured: a Llama with 170 million weights took 629 MB in bfloat16 and 374 MB in 4 bits, and this comes to 639 and 388.
 */
function workingBytes(config: JsonObject): number {
  const fields = { ...(config.text_config as JsonObject | undefined), ...config };
  const number = (name: string) => (typeof fields[name] === "number" ? (fields[name] as number) : 0);
  const chosen = Math.max(1, number("num_experts_per_tok"));
  const inner = Math.max(number("intermediate_size"), chosen * number("moe_intermediate_size"));
  return chunk * (12 * number("hidden_size") + 6 * inner) * 4;
}

/** Memory of the device that computes. */
function memoryThere(): { available: number; device: string } {
  const facts = mx.deviceInfo();
  const device = String(facts.device_name ?? mx.defaultDevice());
  if (mx.defaultDevice() === "cpu") return { available: mx.availableMemory(), device };
  const sizes = [facts.free_memory, facts.max_recommended_working_set_size, facts.memory_size, facts.total_memory];
  const known = sizes.find((size): size is number => typeof size === "number");
  return { available: known ?? mx.availableMemory(), device };
}

const dtypes: Readonly<Record<string, Dtype>> = { F32: "float32", BF16: "bfloat16", F16: "float16" };

/** What computing is done in: the type of most weights that are not packed. */
function computedIn(tensors: ReadonlyMap<string, WeightEntry>): Dtype {
  const bytes = { float32: 0, bfloat16: 0, float16: 0 };
  for (const { dtype, bytes: size } of tensors.values()) {
    const known = dtypes[dtype] as keyof typeof bytes | undefined;
    if (known) bytes[known] += size;
  }
  const [most, size] = Object.entries(bytes).sort(([, a], [, b]) => b - a)[0]!;
  return size > 0 ? (most as Dtype) : "float16";
}

/** Bytes of the cache by its tokens; null for a type that does not run here. */
async function growthOf(
  config: JsonObject,
  name: string,
  tensors: ReadonlyMap<string, WeightEntry>,
): Promise<((tokens: number) => number) | null> {
  const architecture = await architectureOf(config).catch(() => null);
  if (!architecture) return null;
  // Its weights are never computed.
  const model = await createModel(config, name);
  try {
    cast(model, computedIn(tensors), architecture.keepsDtype);
    return cacheGrowth(model);
  } finally {
    model.dispose();
  }
}

function contextFit(growth: (tokens: number) => number, room: number, limit: number | null, wanted?: number) {
  const most = limit ?? longestContext;
  const asked = Math.min(most, wanted ?? usualContext);
  const fits = (tokens: number) => growth(tokens) <= room;
  let [least, largest] = [0, most];
  if (fits(most)) least = most;
  // The largest that fits, by halving.
  while (least < largest) {
    const middle = Math.ceil((least + largest) / 2);
    if (fits(middle)) least = middle;
    else largest = middle - 1;
  }
  const usual = [4096, 16_384, 65_536, 262_144].filter((tokens) => tokens < most);
  const steps = [...new Set([...usual, asked, ...(limit === null ? [] : [limit])])].sort((a, b) => a - b);
  return {
    limit,
    asked,
    largest: least,
    steps: steps.map((tokens) => ({ tokens, bytes: Math.round(growth(tokens)), fits: fits(tokens) })),
  };
}

async function speedOf({ perToken, dtype }: WeightPlan, cache: number): Promise<Fit["speed"]> {
  const measured = await bandwidth(dtypes[dtype] === undefined ? "4-bit" : "bfloat16");
  const bytes = Math.round(perToken + cache);
  return {
    bytes_per_token: bytes,
    tokens_per_second: measured.bytes_per_second / bytes,
    bandwidth: measured,
  };
}

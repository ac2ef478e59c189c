/** Mamba's mixers in GGUF files, of the first and of the second kind. */
import { convolution, decayRate, inTurn, type TensorChange, type TensorChanges } from "./changes";
import { defined, precise } from "./decoder";
import { f32, flag, type GgufDescription, type GgufFacts, type GgufFields, u32 } from "./facts";
import { TensorNames } from "./names";
import { noPlace } from "./rope";

/** Numbers of heads are columns in files. */
const column: TensorChange = { read: (x) => x.squeeze(-1), write: (x) => x.expandDims(-1) };

/** Norms are by groups in files: (groups, dims / groups). */
const byGroups = (groups: number): TensorChange => ({
  read: (x) => x.flatten(),
  write: (x) => x.reshape(groups, -1),
});

/** Names of a mixer's modules and parameters. @param path the mixer in the layer */
export function mixerNames(path: string) {
  return {
    layer: {
      ssm_in: `${path}.in_proj`,
      ssm_conv1d: `${path}.conv1d`,
      ssm_norm: `${path}.norm`,
      ssm_out: `${path}.out_proj`,
    },
    parameters: { ssm_a: `${path}.A_log`, ssm_d: `${path}.D`, "ssm_dt.bias": `${path}.dt_bias` },
  };
}

export const mixerChanges = (path: string, groups: number): TensorChanges => ({
  [`${path}.conv1d.weight`]: convolution,
  [`${path}.A_log`]: inTurn(decayRate, column),
  [`${path}.D`]: column,
  [`${path}.norm`]: byGroups(groups),
});

/** The same of the first kind: a decay rate for each number of the state. */
export function scanNames(path: string) {
  return {
    layer: {
      ssm_in: `${path}.in_proj`,
      ssm_conv1d: `${path}.conv1d`,
      ssm_x: `${path}.x_proj`,
      ssm_dt: `${path}.dt_proj`,
      ssm_out: `${path}.out_proj`,
    },
    parameters: { ssm_a: `${path}.A_log`, ssm_d: `${path}.D` },
  };
}

export const scanChanges = (path: string): TensorChanges => ({
  [`${path}.conv1d.weight`]: convolution,
  [`${path}.A_log`]: decayRate,
});

export interface MixerSizes {
  heads: number;
  headDim: number;
  groups: number;
  stateSize: number;
  kernelSize: number;
}

export const writeMixer = (sizes: MixerSizes): GgufFields => ({
  "ssm.conv_kernel": u32(sizes.kernelSize),
  "ssm.inner_size": u32(sizes.heads * sizes.headDim),
  "ssm.state_size": u32(sizes.stateSize),
  "ssm.time_step_rank": u32(sizes.heads),
  "ssm.group_count": u32(sizes.groups),
});

export function readMixer(file: GgufDescription): MixerSizes {
  const heads = file.need("ssm.time_step_rank");
  return {
    heads,
    headDim: file.need("ssm.inner_size") / heads,
    groups: file.number("ssm.group_count") ?? 1,
    stateSize: file.need("ssm.state_size"),
    kernelSize: file.need("ssm.conv_kernel"),
  };
}

/** Step sizes are not limited in files: limits that hardly any is beyond are as none. */
export function checkLimits(limits: readonly [number, number] | null | undefined): void {
  if (limits && (limits[0] > 0.001 || limits[1] < 100)) noPlace(`"time_step_limit" ${JSON.stringify(limits)}`);
}

/** Trunks of nothing but mixers, as checkpoints name them. */
export const backboneNames = { token_embd: "backbone.embeddings", output_norm: "backbone.norm_f" };

/** What both say of a model without attention. */
interface RecurrentConfig {
  vocab_size: number;
  hidden_size: number;
  num_hidden_layers: number;
  layer_norm_epsilon: number;
  use_bias: boolean;
  use_conv_bias: boolean;
}

/** What llama.cpp's converter says of the length of contexts, which have no limit. */
const anyLength = 2 ** 20;

function writeRecurrent(args: RecurrentConfig): GgufFields {
  if (args.use_bias) noPlace('"use_bias" true');
  if (!args.use_conv_bias) noPlace('"use_conv_bias" false');
  return {
    context_length: u32(anyLength),
    embedding_length: u32(args.hidden_size),
    feed_forward_length: u32(0),
    "attention.head_count": u32(0),
    block_count: u32(args.num_hidden_layers),
    "attention.layer_norm_rms_epsilon": f32(args.layer_norm_epsilon),
  };
}

const readRecurrent = (file: GgufDescription) => ({
  vocab_size: file.shape("token_embd.weight")?.[0] ?? file.wrong("there is no token_embd.weight"),
  hidden_size: file.need("embedding_length"),
  num_hidden_layers: file.need("block_count"),
  layer_norm_epsilon: precise(file.need("attention.layer_norm_rms_epsilon")),
  use_bias: false,
  use_conv_bias: true,
  tie_word_embeddings: file.shape("output.weight") === undefined,
});

interface MambaConfig extends RecurrentConfig {
  model_type: string;
  intermediate_size: number;
  state_size: number;
  conv_kernel: number;
  time_step_rank: number | "auto";
  use_bcdt_rms: boolean;
  mixer_rms_eps: number;
}

const isNormed = (args: Pick<MambaConfig, "use_bcdt_rms" | "model_type">) =>
  args.use_bcdt_rms || args.model_type === "falcon_mamba";

/** Norms of what selects have an epsilon of their own: one so small makes no difference. */
const smallest = 1e-5;

export function mamba(): GgufFacts {
  const { layer, parameters } = scanNames("mixer");
  return {
    architecture: "mamba",
    names: new TensorNames(
      { attn_norm: "norm", ...layer },
      { parameters, outer: backboneNames, layers: "backbone.layers" },
    ),
    normOffset: 0,
    changes: () => scanChanges("mixer"),
    read: (file) => ({
      ...readRecurrent(file),
      intermediate_size: file.need("ssm.inner_size"),
      state_size: file.need("ssm.state_size"),
      conv_kernel: file.need("ssm.conv_kernel"),
      time_step_rank: file.need("ssm.time_step_rank"),
      use_bcdt_rms: (file.list("ssm.dt_b_c_rms")?.[0] ?? 0) !== 0,
      mixer_rms_eps: precise(file.need("attention.layer_norm_rms_epsilon")),
    }),
    write(config) {
      const args = config as MambaConfig;
      const { hidden_size: width, intermediate_size: inner, time_step_rank: rank } = args;
      if (inner !== 2 * width) noPlace(`"intermediate_size" ${inner} (not twice "hidden_size")`);
      if (isNormed(args) && args.mixer_rms_eps > Math.max(args.layer_norm_epsilon, smallest)) {
        noPlace(`"mixer_rms_eps" ${args.mixer_rms_eps} (not "layer_norm_epsilon")`);
      }
      const fields = {
        ...writeRecurrent(args),
        "ssm.conv_kernel": u32(args.conv_kernel),
        "ssm.inner_size": u32(inner),
        "ssm.state_size": u32(args.state_size),
        "ssm.time_step_rank": u32(rank === "auto" ? Math.ceil(width / 16) : rank),
        "ssm.dt_b_c_rms": flag(isNormed(args)),
      };
      return { fields: defined(fields), tensors: {} };
    },
  };
}

interface Mamba2Config extends RecurrentConfig {
  num_heads: number;
  head_dim: number;
  n_groups: number;
  state_size: number;
  ssm_state_size?: number | null;
  conv_kernel: number;
  time_step_limit: readonly [number, number];
}

export function mamba2(): GgufFacts {
  const { layer, parameters } = mixerNames("mixer");
  return {
    architecture: "mamba2",
    names: new TensorNames(
      { attn_norm: "norm", ...layer },
      { parameters, outer: backboneNames, layers: "backbone.layers" },
    ),
    normOffset: 0,
    changes: (config) => mixerChanges("mixer", (config as Mamba2Config).n_groups),
    read(file) {
      const { heads, headDim, groups, stateSize, kernelSize } = readMixer(file);
      if (groups > 1) file.wrong(`its norms are by ${groups} groups; mlxlm has them whole`);
      return {
        ...readRecurrent(file),
        num_heads: heads,
        head_dim: headDim,
        n_groups: groups,
        state_size: stateSize,
        conv_kernel: kernelSize,
        time_step_limit: [0, 1e9],
      };
    },
    write(config) {
      const args = config as Mamba2Config;
      checkLimits(args.time_step_limit);
      // llama.cpp's norms are by groups.
      if (args.n_groups !== 1) noPlace(`"n_groups" ${args.n_groups} (not 1)`);
      const mixer = {
        heads: args.num_heads,
        headDim: args.head_dim,
        groups: args.n_groups,
        stateSize: args.ssm_state_size ?? args.state_size,
        kernelSize: args.conv_kernel,
      };
      return { fields: defined({ ...writeRecurrent(args), ...writeMixer(mixer) }), tensors: {} };
    },
  };
}

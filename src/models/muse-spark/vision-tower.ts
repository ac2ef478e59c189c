/**
 * Muse Spark's vision tower: a ViT over patches of one image, which most layers see in tiles and some as a whole, with two
 * axes of rotations and a table of positions for any grid. Dosovitskiy et al. 2021, arXiv:2010.11929.
 */
import { z } from "zod";
import type { Dtype, Tensor } from "../../mlx";
import * as mx from "../../mlx";
import { Embedding, gelu, type Layer, LayerNorm, Linear, Module } from "../../nn";
import { size } from "../args";

export const VisionArgs = z
  .object({
    hidden_size: size.default(1536),
    intermediate_size: size.default(8960),
    num_hidden_layers: size.default(50),
    num_attention_heads: size.default(16),
    num_channels: z.literal(3).default(3),
    /** Pixels along a patch. */
    patch_size: size.default(14),
    /** How often an image stands behind itself, as the pictures of a film do. */
    patch_temporal: size.default(2),
    /** Patches along a token. */
    merge_size: size.default(2),
    /** Of the table of positions, and of a tile; images may be larger. */
    pos_emb_height: size.default(32),
    pos_emb_width: size.default(32),
    layer_norm_eps: z.number().positive().default(1e-5),
    rope_parameters: z.object({ rope_theta: z.number().positive().default(10_000) }).prefault({}),
    layer_types: z.array(z.string()).nullish(),
    use_ij_pos_encoding: z.boolean().default(false),
  })
  .superRefine((args, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    const { hidden_size: dims, num_attention_heads: heads, pos_emb_height: rows, pos_emb_width: columns } = args;
    if (dims % (4 * heads) !== 0) {
      problem("hidden_size", `is ${dims}, but must be a multiple of 4 · "num_attention_heads" (${heads})`);
    }
    if (rows !== columns) problem("pos_emb_width", `is ${columns}, but "pos_emb_height" is ${rows}`);
    const types = args.layer_types?.length ?? args.num_hidden_layers;
    if (types !== args.num_hidden_layers) {
      problem("layer_types", `has ${types} entries, but "num_hidden_layers" is ${args.num_hidden_layers}`);
    }
  });

export type VisionArgs = z.infer<typeof VisionArgs>;

/** Every fourth layer and the last one see the whole image, unless the configuration says otherwise. */
function seesAll({ layer_types: types, num_hidden_layers: layers }: VisionArgs, index: number): boolean {
  return types ? types[index] === "full_attention" : (index + 1) % 4 === 0 || index === layers - 1;
}

/** In float32, rounded once. */
const preciseGelu = (x: Tensor): Tensor => gelu(x.astype("float32")).astype(x.dtype);

class PreciseLayerNorm extends LayerNorm {
  override forward(x: Tensor): Tensor {
    return super.forward(x.astype("float32")).astype(x.dtype);
  }
}

/** What all layers know of an image's patches. */
interface Layout {
  /** (N, 1, headDim / 2) */
  cos: Tensor;
  sin: Tensor;
  /** Patches by tile, those of tiles of one shape together; null where one tile holds all. */
  tiles: Tiles | null;
}

interface Tiles {
  /** (tiles, patches of each) */
  groups: Tensor[];
  /** The way back to rows of patches. */
  order: Tensor;
}

/** Pairs of neighbours in the last axis, turned. x (N, heads, headDim) */
function rotate(x: Tensor, { cos, sin }: Layout): Tensor {
  const pairs = x.reshape(...x.shape.slice(0, -1), -1, 2);
  const [first, second] = [pairs.at(mx.ellipsis, 0), pairs.at(mx.ellipsis, 1)];
  const turned = [first.multiply(cos).subtract(second.multiply(sin)), second.multiply(cos).add(first.multiply(sin))];
  return mx.stack(turned, { axis: -1 }).reshape(x.shape).astype(x.dtype);
}

class Attention extends Module {
  qkv_proj: Layer;
  proj: Layer;
  readonly heads: number;

  constructor({ hidden_size: dims, num_attention_heads: heads }: VisionArgs) {
    super();
    this.qkv_proj = new Linear(dims, 3 * dims);
    this.proj = new Linear(dims, dims);
    this.heads = heads;
  }

  /** x (N, D) → (N, D) */
  forward(x: Tensor, layout: Layout, isWhole: boolean): Tensor {
    const [count, dims] = x.shape as [number, number];
    const parts = this.qkv_proj
      .forward(x)
      .split(3, -1)
      .map((part) => part.reshape(count, this.heads, -1));
    const [q, k, v] = [rotate(parts[0]!, layout), rotate(parts[1]!, layout), parts[2]!];
    return this.proj.forward(attend(q, k, v, isWhole ? null : layout.tiles).reshape(count, dims));
  }
}

/** (N, heads, headDim) each → the same. Patches see those of their tile. */
function attend(q: Tensor, k: Tensor, v: Tensor, tiles: Tiles | null): Tensor {
  const scale = q.dim(-1) ** -0.5;
  const within = (...parts: Tensor[]) => {
    const [q, k, v] = parts.map((part) => part.swapaxes(1, 2)) as [Tensor, Tensor, Tensor];
    return mx.fast.scaledDotProductAttention(q, k, v, { scale }).swapaxes(1, 2);
  };
  if (!tiles) return within(q.expandDims(0), k.expandDims(0), v.expandDims(0)).squeeze(0);
  const results = tiles.groups.map((group) =>
    within(q.take(group, 0), k.take(group, 0), v.take(group, 0)).flatten(0, 1),
  );
  return mx.concatenate(results).take(tiles.order, 0);
}

class MLP extends Module {
  fc1: Layer;
  fc2: Layer;

  constructor({ hidden_size: dims, intermediate_size: inner }: VisionArgs) {
    super();
    this.fc1 = new Linear(dims, inner);
    this.fc2 = new Linear(inner, dims);
  }

  forward(x: Tensor): Tensor {
    return this.fc2.forward(preciseGelu(this.fc1.forward(x)));
  }
}

class Block extends Module {
  norm1: LayerNorm;
  attn: Attention;
  norm2: LayerNorm;
  mlp: MLP;
  readonly isWhole: boolean;

  constructor(args: VisionArgs, index: number) {
    super();
    const { hidden_size: dims, layer_norm_eps: eps } = args;
    this.norm1 = new PreciseLayerNorm(dims, eps);
    this.attn = new Attention(args);
    this.norm2 = new PreciseLayerNorm(dims, eps);
    this.mlp = new MLP(args);
    this.isWhole = seesAll(args, index);
  }

  /** x (N, D) → (N, D) */
  forward(x: Tensor, layout: Layout): Tensor {
    const h = x.add(this.attn.forward(this.norm1.forward(x), layout, this.isWhole));
    return h.add(this.mlp.forward(this.norm2.forward(h)));
  }
}

class PatchEmbedder extends Module {
  patch_embedding: Linear;
  position_embedding_table: Embedding;

  constructor({
    hidden_size: dims,
    num_channels: channels,
    patch_size: side,
    patch_temporal: times,
    ...args
  }: VisionArgs) {
    super();
    this.patch_embedding = new Linear(channels * side ** 2 * times, dims, { bias: false });
    this.position_embedding_table = new Embedding(args.pos_emb_height * args.pos_emb_width, dims);
  }
}

export class VisionTower extends Module {
  patch_embedder: PatchEmbedder;
  ln_pre: LayerNorm;
  layers: Block[];
  ln_post: LayerNorm;
  readonly #args: VisionArgs;

  constructor(args: VisionArgs) {
    super();
    const { hidden_size: dims, layer_norm_eps: eps, num_hidden_layers: count } = args;
    this.patch_embedder = new PatchEmbedder(args);
    this.ln_pre = new PreciseLayerNorm(dims, eps);
    this.layers = Array.from({ length: count }, (_, index) => new Block(args, index));
    this.ln_post = new PreciseLayerNorm(dims, eps);
    this.#args = args;
  }

  get headDim(): number {
    return this.#args.hidden_size / this.#args.num_attention_heads;
  }

  /** One image (3, H, W), its sides whole tokens long → (tokens, D · merge²) */
  forward(image: Tensor): Tensor {
    const { patch_size: side, patch_temporal: times, merge_size: merge, pos_emb_height: table } = this.#args;
    const { patch_embedding, position_embedding_table } = this.patch_embedder;
    const [channels, height, width] = image.shape as [number, number, number];
    const [rows, columns] = [height / side, width / side];
    // That of the weights, however they are packed.
    const { dtype } = this.ln_pre.weight!;
    const patches = image
      .astype(dtype)
      .reshape(channels, rows, side, columns, side)
      .transpose(1, 3, 0, 2, 4)
      .reshape(rows * columns, -1);
    const grid = { rows, columns, size: table, ij: this.#args.use_ij_pos_encoding, dtype };
    const embedded = patch_embedding
      .forward(
        mx.concatenate(
          Array.from({ length: times }, () => patches),
          { axis: -1 },
        ),
      )
      .add(positions(position_embedding_table, grid));
    const layout = { ...this.#rotations(rows, columns), tiles: tilesOf(rows, columns, table) };
    const seen = this.layers.reduce((h, block) => block.forward(h, layout), this.ln_pre.forward(embedded));
    return this.ln_post
      .forward(seen)
      .reshape(rows / merge, merge, columns / merge, merge, -1)
      .transpose(0, 2, 4, 1, 3)
      .reshape((rows * columns) / merge ** 2, -1);
  }

  /** Half of the pairs turn by the column, half by the row; both count from one. */
  #rotations(rows: number, columns: number): { cos: Tensor; sin: Tensor } {
    const { headDim } = this;
    const { rope_parameters } = this.#args;
    const exponents = mx.arange(headDim / 4).multiply(4 / headDim);
    const speeds = mx.divide(1, mx.power(rope_parameters.rope_theta, exponents));
    const angles = (count: number) =>
      mx
        .arange(1, count + 1)
        .expandDims(-1)
        .multiply(speeds);
    const shape = [rows, columns, headDim / 4];
    const [across, down] = [angles(columns).expandDims(0), angles(rows).expandDims(1)];
    const all = mx.concatenate([mx.broadcastTo(across, shape), mx.broadcastTo(down, shape)], { axis: -1 });
    const flat = all.reshape(rows * columns, 1, -1);
    return { cos: flat.cos(), sin: flat.sin() };
  }
}

/** Evenly spaced numbers as PyTorch makes them for tables of this dtype: from both ends, in float32. */
function evenly(start: number, end: number, count: number, dtype: Dtype): Tensor {
  const exact = (value: number) => mx.array(value, "float32").astype(dtype).astype("float32");
  const [first, last] = [exact(start), exact(end)];
  const step = last.subtract(first).divide(Math.max(count - 1, 1));
  const i = mx.arange(count);
  const [rising, falling] = [first.add(step.multiply(i)), last.subtract(step.multiply(mx.subtract(count - 1, i)))];
  return mx.where(i.less(Math.floor(count / 2)), rising, falling).astype(dtype);
}

interface Grid {
  rows: number;
  columns: number;
  /** Of the table's sides. */
  size: number;
  ij: boolean;
  dtype: Dtype;
}

/** A table (size², D) of positions, sampled bilinearly at the middles of a grid's cells: (rows · columns, D) */
function positions(table: Embedding, { rows, columns, size, ij, dtype }: Grid): Tensor {
  const down = evenly(-1 + 1 / rows, 1 - 1 / rows, rows, dtype);
  const across = evenly(-1 + 1 / columns, 1 - 1 / columns, columns, dtype);
  const cells = mx.arange(rows * columns).astype("int32");
  // The older way takes a grid by its columns: transposed, but for squares.
  const [x, y] = ij
    ? [across.take(cells.remainder(columns), 0), down.take(cells.floorDivide(columns), 0)]
    : [down.take(cells.remainder(rows), 0), across.take(cells.floorDivide(rows), 0)];
  const place = (value: Tensor) => value.astype("float32").add(1).multiply(size).subtract(1).divide(2);
  const [atX, atY] = [place(x), place(y)];
  const [left, top] = [atX.floor(), atY.floor()];
  const [toRight, toBottom] = [atX.subtract(left), atY.subtract(top)];
  const [toLeft, toTop] = [left.add(1).subtract(atX), top.add(1).subtract(atY)];
  const corner = (cx: Tensor, cy: Tensor, weight: Tensor) => {
    const isInside = mx.logicalAnd(
      mx.logicalAnd(cx.greaterEqual(0), cx.less(size)),
      mx.logicalAnd(cy.greaterEqual(0), cy.less(size)),
    );
    const within = (place: Tensor) => mx.clip(place, 0, size - 1);
    const index = within(cy).multiply(size).add(within(cx));
    const entries = table.forward(index.astype("int32")).astype("float32");
    return entries.multiply(mx.where(isInside, weight, 0).expandDims(-1));
  };
  return corner(left, top, toLeft.multiply(toTop))
    .add(corner(left.add(1), top, toRight.multiply(toTop)))
    .add(corner(left, top.add(1), toLeft.multiply(toBottom)))
    .add(corner(left.add(1), top.add(1), toRight.multiply(toBottom)))
    .astype(dtype);
}

/** A grid's patches in tiles of `side`; null where one holds all. */
function tilesOf(rows: number, columns: number, side: number): Tiles | null {
  if (rows <= side && columns <= side) return null;
  const groups = new Map<string, number[][]>();
  for (let top = 0; top < rows; top += side) {
    for (let left = 0; left < columns; left += side) {
      const [height, width] = [Math.min(side, rows - top), Math.min(side, columns - left)];
      const at = (i: number) => (top + Math.floor(i / width)) * columns + left + (i % width);
      const tile = Array.from({ length: height * width }, (_, i) => at(i));
      const shape = `${height}×${width}`;
      groups.set(shape, [...(groups.get(shape) ?? []), tile]);
    }
  }
  const all = [...groups.values()];
  const back = new Uint32Array(rows * columns);
  for (const [place, patch] of all.flat(2).entries()) back[patch] = place;
  const indices = (tiles: number[][]) => mx.array(tiles.flat(), "uint32", [tiles.length, tiles[0]!.length]);
  return { groups: all.map(indices), order: mx.array(back, "uint32") };
}

/** From what the tower gives of a token to the language model's width. */
export class VisionAdapter extends Module {
  fc1: Layer;
  fc2: Layer;

  constructor(inputDims: number, dims: number) {
    super();
    this.fc1 = new Linear(inputDims, dims, { bias: false });
    this.fc2 = new Linear(dims, dims, { bias: false });
  }

  forward(x: Tensor): Tensor {
    return preciseGelu(this.fc2.forward(preciseGelu(this.fc1.forward(x))));
  }
}

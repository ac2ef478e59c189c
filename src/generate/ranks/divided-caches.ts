/**
 * The caches of a model that is divided among processes, as one process would have them, and back: heads side by side, or
 * layers one behind the other.
 */
import { ExitCode, UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import { broadcastJson, gatherJson, type ToldTensor } from "../../mlx/group-messages";
import type { Cache, LanguageModel } from "../../models";
import { type CacheState, kindNamed, type Range, savedKindOf, savedStateOf, withoutMessages } from "../../nn";

/** A tensor's place in a cache's state → its shape. */
type Shapes = Record<string, readonly number[]>;

/** In a list of caches and in the state of each, the axis of heads. */
const headAxis = 1;

/** How a tensor of a layer's state is divided: not, by heads, or in another way. */
type Division = "whole" | "other" | { heads: number; ofRanks: readonly Range[] };

type ToldState = { tensor: ToldTensor } | { value: number | boolean | string | null } | ToldState[];

const isTensor = (leaf: CacheState): leaf is Tensor => leaf instanceof mx.Tensor;

/** Shapes of what each layer's cache holds after some tokens. Nothing is computed. */
function shapesOf(model: LanguageModel): Shapes[] {
  const cache = model.makeCache();
  try {
    return mx.scope(() => {
      withoutMessages(() => model.forward(mx.zeros([1, 2], "uint32"), { cache }));
      return cache.map((layer) => {
        const shapes: Shapes = {};
        mapTensors(savedStateOf(layer), (x, place) => {
          shapes[place] = x.shape;
          return x;
        });
        return shapes;
      });
    });
  } finally {
    for (const layer of cache) layer.dispose();
  }
}

/** A state with other tensors in the place of its own; places are indexes with points between them. */
function mapTensors(state: CacheState, change: (x: Tensor, place: string) => Tensor, place = ""): CacheState {
  if (Array.isArray(state)) {
    return state.map((part, i) => mapTensors(part, change, place === "" ? `${i}` : `${place}.${i}`));
  }
  return isTensor(state) ? change(state, place) : state;
}

/** A cache with this state, which is computed. */
function restored(kind: string, state: CacheState): Cache {
  mx.eval(mx.treeFlatten(state).flatMap(([, leaf]) => (isTensor(leaf as CacheState) ? [leaf as Tensor] : [])));
  return kindNamed(kind)!.restore(state as CacheState[], kindNamed);
}

/** A cache of the same kind with other tensors. */
const changed = (cache: Cache, change: (x: Tensor, place: string) => Tensor): Cache =>
  mx.scope(() => restored(savedKindOf(cache).name, mapTensors(savedStateOf(cache), change)));

export class DividedCaches {
  readonly #group: mx.distributed.Group;
  readonly #whole: readonly Shapes[];
  /** Of which layers this process has caches. */
  #own: Range = [0, 0];
  /** Which process has the caches of a layer, where each has some. */
  #owners: readonly number[] | null = null;
  #divisions: readonly ReadonlyMap<string, Division>[] = [];

  /** @param model as it is before it is divided. All processes of the group must call this, and what follows. */
  constructor(model: LanguageModel, group: mx.distributed.Group) {
    this.#group = group;
    this.#whole = shapesOf(model);
  }

  /** @param model the same, divided */
  divided(model: LanguageModel): void {
    const { rank } = this.#group;
    const byRank = gatherJson(this.#group, shapesOf(model));
    const counts = byRank.map(({ length }) => length);
    if (counts.every((count) => count === this.#whole.length)) {
      this.#own = [0, this.#whole.length];
      this.#divisions = this.#whole.map((whole, layer) =>
        divisionsOf(
          whole,
          byRank.map((shapes) => shapes[layer]!),
        ),
      );
      return;
    }
    const start = counts.slice(0, rank).reduce((sum, count) => sum + count, 0);
    this.#own = [start, start + counts[rank]!];
    this.#owners = counts.flatMap((count, owner) => new Array<number>(count).fill(owner));
    this.#divisions = this.#whole.map(() => new Map());
  }

  /** @throws UserError where caches are divided in a way that cannot be undone */
  check(): void {
    if (!this.#divisions.some((layer) => [...layer.values()].includes("other"))) return;
    throw new UserError(
      "this model's caches cannot be put together: the state of recurrent layers is divided by channels",
      {
        code: ExitCode.usage,
        hint: "Give each rank some layers instead, by --pipeline, or start without mlxlm launch.",
      },
    );
  }

  /** Each process's part → the caches of all layers and heads, on all of them. The caller disposes of them. */
  gathered(own: readonly Cache[]): Cache[] {
    this.check();
    return this.#divisions.map((divisions, layer) => {
      const owner = this.#owners?.[layer];
      if (owner !== undefined) return this.#told(own[layer - this.#own[0]] ?? null, owner);
      return changed(own[layer]!, (x, place) => this.#joined(x, divisionAt(divisions, place)));
    });
  }

  /**
   * The caches of all layers and heads, which the first process has → each process's part. The caller disposes of both.
   * @throws UserError where they are no caches of the model
   */
  parts(whole: readonly Cache[] | null): Cache[] {
    if (whole) this.checkWhole(whole);
    const [start, end] = this.#own;
    const parts: Cache[] = [];
    for (const [layer, divisions] of this.#divisions.entries()) {
      const told = this.#told(whole?.[layer] ?? null, 0);
      if (layer >= start && layer < end) {
        parts.push(changed(told, (x, place) => this.#part(x, divisionAt(divisions, place))));
      }
      told.dispose();
    }
    return parts;
  }

  /** @throws UserError for caches of all layers and heads that are not the model's, or cannot be divided */
  checkWhole(whole: readonly Cache[]): void {
    this.check();
    const refused = (problem: string) =>
      new UserError(`these are the caches of another model: ${problem}`, {
        code: ExitCode.usage,
        hint: "Leave out --model to take the one that the file was made with.",
      });
    const { length } = this.#whole;
    if (whole.length !== length) throw refused(`there are ${whole.length} layers, not ${length}`);
    for (const [layer, cache] of whole.entries()) {
      let problem: string | null = null;
      mapTensors(savedStateOf(cache), (x, place) => {
        const division = divisionAt(this.#divisions[layer]!, place);
        if (typeof division !== "object" || (x.ndim > headAxis && x.dim(headAxis) === division.heads)) return x;
        problem ??= `layer ${layer} has (${x.shape.join(", ")}), not ${division.heads} heads`;
        return x;
      });
      if (problem) throw refused(problem);
    }
  }

  /** A part (B, this process's heads, …) → (B, heads, …), on all */
  #joined(x: Tensor, division: Division): Tensor {
    if (typeof division !== "object") return mx.contiguous(x);
    const { heads, ofRanks } = division;
    const longest = Math.max(...ofRanks.map(([start, end]) => end - start));
    const lacking = longest - x.dim(headAxis);
    const none: [number, number][] = x.shape.map((_, axis) => [0, axis === headAxis ? lacking : 0]);
    const part = lacking > 0 ? mx.pad(x, none) : mx.contiguous(x);
    const all = mx.distributed.allGather(part.expandDims(0), { group: this.#group });
    const parts: Tensor[] = [];
    // Where several processes have the same head, the first one's is taken.
    for (let head = 0; head < heads; ) {
      const rank = ofRanks.findIndex(([start, end]) => start <= head && head < end);
      const [start, end] = ofRanks[rank]!;
      parts.push(mx.sliceAxis(all.at(rank), headAxis, head - start, end - start));
      head = end;
    }
    return mx.contiguous(mx.concatenate(parts, { axis: headAxis }));
  }

  #part(x: Tensor, division: Division): Tensor {
    if (typeof division !== "object") return mx.contiguous(x);
    return mx.contiguous(mx.sliceAxis(x, headAxis, ...division.ofRanks[this.#group.rank]!));
  }

  /** A cache that one process has, as a copy on all. */
  #told(own: Cache | null, source: number): Cache {
    const group = this.#group;
    const isSource = group.rank === source;
    const state = isSource ? savedStateOf(own!) : null;
    const { kind, form } = broadcastJson(
      group,
      isSource ? { kind: savedKindOf(own!).name, form: formOf(state) } : null,
      source,
    );
    return mx.scope(() => {
      const sum = ({ shape, dtype }: ToldTensor, x: Tensor | null) =>
        mx.distributed.allSum(x ?? mx.zeros(shape, dtype), { group });
      return restored(kind, filled(form, state, sum));
    });
  }
}

const formOf = (state: CacheState): ToldState =>
  Array.isArray(state)
    ? state.map(formOf)
    : isTensor(state)
      ? { tensor: { shape: state.shape, dtype: state.dtype } }
      : { value: state };

/** A state of this form; of tensors the process's own are given, where it has them. */
function filled(form: ToldState, own: CacheState, make: (told: ToldTensor, own: Tensor | null) => Tensor): CacheState {
  if (Array.isArray(form)) {
    return form.map((part, i) => filled(part, Array.isArray(own) ? own[i]! : null, make));
  }
  return "tensor" in form ? make(form.tensor, isTensor(own) ? own : null) : form.value;
}

/** How the tensors of a layer's cache are divided, by their places. */
function divisionsOf(whole: Shapes, byRank: readonly Shapes[]): ReadonlyMap<string, Division> {
  return new Map(
    Object.entries(whole).map(([place, shape]) => [
      place,
      divisionOf(
        shape,
        byRank.map((own) => own[place]),
      ),
    ]),
  );
}

function divisionOf(whole: readonly number[], parts: readonly (readonly number[] | undefined)[]): Division {
  const isSame = (part: readonly number[] | undefined) => part?.join() === whole.join();
  if (parts.every(isSame)) return "whole";
  const [heads, axes] = [whole[headAxis]!, whole.length];
  const others = (shape: readonly number[]) => shape.filter((_, axis) => axis !== headAxis).join();
  if (axes !== 4 || !parts.every((part) => part?.length === axes && others(part) === others(whole))) return "other";
  const counts = parts.map((part) => part![headAxis]!);
  const sum = counts.reduce((all, count) => all + count, 0);
  if (sum === heads) {
    const starts = counts.map((_, rank) => counts.slice(0, rank).reduce((all, count) => all + count, 0));
    return { heads, ofRanks: counts.map((count, rank) => [starts[rank]!, starts[rank]! + count] as const) };
  }
  // More processes than heads of keys: several have the same one, as `shareHeads` gives them.
  if (heads > counts.length || counts.some((count) => count !== 1)) return "other";
  const ofRanks = counts.map((_, rank) => Math.floor((rank * heads) / counts.length));
  return { heads, ofRanks: ofRanks.map((head) => [head, head + 1] as const) };
}

/** Of a place, or of the tensor that was packed into the ones below it. */
function divisionAt(divisions: ReadonlyMap<string, Division>, place: string): Division {
  for (let at = place; at !== ""; at = at.slice(0, Math.max(0, at.lastIndexOf(".")))) {
    const found = divisions.get(at);
    if (found) return found;
  }
  return "whole";
}

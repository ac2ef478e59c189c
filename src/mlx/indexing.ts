/**
 * Reading and writing by index, with the meaning that Python's `x[…]`, `x[…] = v` and `x.at[…].add(v)` have in MLX
 * (which is NumPy's). MLX's C++ has only the parts: slice, take, gather, slice_update, scatter.
 */
import { arange } from "./creation";
import { where } from "./elementwise";
import { MlxError } from "./error";
import * as abi from "./generated/ops";
import { bounds, broadcastShape, type Index, type Item, plan } from "./index-plan";
import type { Handle } from "./native";
import { type Operand, tensorOf, wrap } from "./operand";
import { Tensor } from "./tensor";

export { ellipsis, type Index, newaxis, type Slice, slice } from "./index-plan";

type Listed = Extract<Item, { kind: "list" }>;

/** `x[index]`. */
export function indexInto(x: Tensor, index: readonly Index[]): Tensor {
  const items = plan(x.shape, index);
  return items.some((item) => item.kind === "list") ? gatherItems(x, items) : sliceItems(x, items);
}

function sliceItems(x: Tensor, items: readonly Item[]): Tensor {
  let handle = x.handle;
  if (items.some((item) => item.kind === "number" || (item.kind === "range" && !item.whole))) {
    const { start, stop, stride } = bounds(items);
    handle = abi.slice(handle, start, stop, stride);
  }
  const dropped = items.flatMap((item) => (item.kind === "number" ? [item.axis] : []));
  if (dropped.length > 0) handle = abi.squeeze(handle, dropped);
  const added = newAxes(items.filter((item) => item.kind !== "number"));
  if (added.length > 0) handle = abi.expand_dims(handle, added);
  return wrap(handle === x.handle ? abi.copy(handle) : handle);
}

const newAxes = (kept: readonly Item[]) => kept.flatMap((item, i) => (item.kind === "new" ? [i] : []));

/**
 * Where the axes of an index with lists end up. Numbers beside lists are lists of one. The lists' common shape stands
 * where the first of them stood, or in front when something lies between them.
 */
interface Layout {
  lists: Listed[];
  /** The broadcast shape of the lists. */
  common: number[];
  /** The items of the result in order, the lists as one "lists" entry. */
  order: (Item | "lists")[];
}

function layoutOf(items: readonly Item[]): Layout {
  const asList = (item: Item): Item =>
    item.kind === "number" ? { kind: "list", axis: item.axis, indices: tensorOf(item.value) } : item;
  const listed = items.map(asList);
  const places = listed.flatMap((item, i) => (item.kind === "list" ? [i] : []));
  const lists = listed.filter((item): item is Listed => item.kind === "list");
  const adjacent = places.every((place, i) => i === 0 || place === places[i - 1]! + 1);
  const others = listed.filter((item) => item.kind !== "list");
  const at = adjacent ? places[0]! : 0;
  return {
    lists,
    common: broadcastShape(lists.map((list) => list.indices.shape)),
    order: [...others.slice(0, at), "lists", ...others.slice(at)],
  };
}

function gatherItems(x: Tensor, items: readonly Item[]): Tensor {
  const others = items.filter((item) => item.kind !== "list");
  if (others.length === items.length - 1 && others.every((item) => item.kind === "range" && item.whole)) {
    const { axis, indices } = items.find((item) => item.kind === "list") as Listed;
    return wrap(abi.take(x.handle, indices.handle, axis));
  }

  const { lists, common, order } = layoutOf(items);
  const cut = sliceRanges(x, items);
  const axes = lists.map((list) => list.axis);
  const sizes = x.shape.map((size, axis) => (axes.includes(axis) ? 1 : (rangeOf(items, axis)?.length ?? size)));
  const handles = lists.map((list) => list.indices.handle);
  // → common shape, then every axis of x, those of the lists with size 1
  const gathered = abi.gather(cut, handles, axes, sizes);
  const squeezed = abi.squeeze(
    gathered,
    axes.map((axis) => axis + common.length),
  );

  const inFront = order.indexOf("lists") === 0;
  const before = order.slice(0, order.indexOf("lists")).filter((item) => (item as Item).kind === "range").length;
  const rank = common.length + order.filter((item) => item !== "lists" && item.kind === "range").length;
  const placed = inFront || before === 0 ? squeezed : abi.transpose(squeezed, moveFront(common.length, before, rank));
  const added = expandedAxes(order, common.length);
  return wrap(added.length > 0 ? abi.expand_dims(placed, added) : placed);
}

/** The permutation that puts the first `count` axes behind the next `before`. */
function moveFront(count: number, before: number, rank: number): number[] {
  const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
  return [...range(count, count + before), ...range(0, count), ...range(count + before, rank)];
}

/** Positions of new axes in the result. */
function expandedAxes(order: Layout["order"], common: number): number[] {
  const positions: number[] = [];
  let at = 0;
  for (const item of order) {
    if (item !== "lists" && item.kind === "new") positions.push(at);
    at += item === "lists" ? common : 1;
  }
  return positions;
}

function rangeOf(items: readonly Item[], axis: number) {
  const found = items.find((item) => item.kind === "range" && item.axis === axis);
  return found?.kind === "range" ? found.range : undefined;
}

/** `x` cut to the index's ranges; axes of lists stay whole. */
function sliceRanges(x: Tensor, items: readonly Item[]): Handle {
  if (items.every((item) => item.kind !== "range" || item.whole)) return x.handle;
  const { start, stop, stride } = bounds(
    x.shape.map((size, axis) => ({
      kind: "range",
      axis,
      range: rangeOf(items, axis) ?? { start: 0, length: size, step: 1 },
      whole: false,
    })),
  );
  return abi.slice(x.handle, start, stop, stride);
}

export type Update = "set" | "add" | "subtract" | "multiply" | "divide" | "maximum" | "minimum";

const sliceUpdates = {
  set: abi.slice_update,
  add: abi.slice_update_add,
  multiply: abi.slice_update_prod,
  maximum: abi.slice_update_max,
  minimum: abi.slice_update_min,
};

const scatters = {
  set: abi.scatter,
  add: abi.scatter_add,
  multiply: abi.scatter_prod,
  maximum: abi.scatter_max,
  minimum: abi.scatter_min,
};

/** `x[…, start:stop, …]` along one axis, for loops that cannot afford the general form. */
export function sliceAxis(x: Tensor, axis: number, start: number, stop: number): Tensor {
  return wrap(abi.slice_axis(x.handle, axis, start, stop));
}

/** `x[…, start:start + n, …] = update` along one axis, as a new tensor; n is the update's size there. */
export function updateAxis(x: Tensor, update: Tensor, axis: number, start: number): Tensor {
  return wrap(abi.update_axis(x.handle, update.handle, axis, start));
}

/** `x[start:start + n, …] = update` along all axes, as a new tensor; n is the update's size there. */
export function updateBlock(x: Tensor, update: Tensor, start: readonly number[]): Tensor {
  const stop = start.map((from, axis) => from + update.dim(axis));
  return wrap(
    abi.slice_update(
      x.handle,
      update.handle,
      start,
      stop,
      start.map(() => 1),
    ),
  );
}

/** `x[index] = value` and `x.at[index].<update>(value)`, as a new tensor. */
export function indexUpdate(x: Tensor, index: Index | readonly Index[], value: Operand, update: Update): Tensor {
  if (update === "subtract") return indexUpdate(x, index, tensorOf(value, x.dtype).negative(), "add");
  if (update === "divide") {
    return indexUpdate(x, index, wrap(abi.reciprocal(tensorOf(value, x.dtype).handle)), "multiply");
  }
  const list = isIndexList(index) ? index : [index];
  const first = list[0];
  if (first instanceof Tensor && first.dtype === "bool") {
    if (list.length > 1 || update !== "set") throw new MlxError("a boolean mask can only be the whole index of put()");
    return putMasked(x, first, value);
  }
  const items = plan(x.shape, list);
  const given = tensorOf(value, x.dtype);
  const typed = given.dtype === x.dtype ? given : given.astype(x.dtype);
  return items.some((item) => item.kind === "list")
    ? scatterItems(x, items, typed, update)
    : updateSlice(x, items, typed, update);
}

/** Whether a `put` index is a list of items, not one item that is itself a list of numbers. */
function isIndexList(index: Index | readonly Index[]): index is readonly Index[] {
  return Array.isArray(index);
}

function putMasked(x: Tensor, mask: Tensor, value: Operand): Tensor {
  const given = tensorOf(value, x.dtype);
  if (given.size !== 1) return wrap(abi.masked_scatter(x.handle, mask.handle, given.astype(x.dtype).handle));
  const trailing = Array.from({ length: x.ndim - mask.ndim }, (_, i) => mask.ndim + i);
  const wide = trailing.length > 0 ? mask.expandDims(trailing) : mask;
  return where(wide, given.reshape([]).astype(x.dtype), x);
}

/** The value with leading axes of size 1 dropped down to `rank`. @throws RangeError where it has too many axes */
function trimmed(value: Tensor, rank: number): Tensor {
  const extra = value.ndim - rank;
  if (extra <= 0) return value;
  if (value.shape.slice(0, extra).some((size) => size !== 1)) {
    throw new RangeError(`a value of shape (${value.shape.join(", ")}) does not fit into ${rank} axes`);
  }
  return value.reshape(value.shape.slice(extra));
}

function updateSlice(x: Tensor, items: readonly Item[], value: Tensor, update: keyof typeof sliceUpdates): Tensor {
  const kept = items.filter((item) => item.kind !== "number");
  const short = trimmed(value, kept.length);
  // One size per item of the result, aligned from the right; then new axes go and numbers come back as size 1.
  const sizes: number[] = [];
  let at = short.ndim - kept.length;
  for (const item of items) {
    if (item.kind === "number") {
      sizes.push(1);
      continue;
    }
    const size = at >= 0 ? short.shape[at]! : 1;
    at += 1;
    if (item.kind === "range") sizes.push(size);
    else if (size !== 1) throw new RangeError(`a new axis has size 1, the value has ${size} there`);
  }
  const { start, stop, stride } = bounds(items);
  const shaped =
    sizes.length === short.ndim && sizes.every((size, i) => size === short.shape[i]) ? short : short.reshape(sizes);
  return wrap(sliceUpdates[update](x.handle, shaped.handle, start, stop, stride));
}

function scatterItems(x: Tensor, items: readonly Item[], value: Tensor, update: keyof typeof scatters): Tensor {
  const { lists, common, order } = layoutOf(items);
  const lengthOf = (item: Item) => (item.kind === "range" ? item.range.length : 1);
  const shape = order.flatMap((item) => (item === "lists" ? common : [lengthOf(item)]));

  // The value in the order that scatter wants: the lists' axes, then partial ranges (as lists of their own), then the
  // axes that are whole.
  const wide = trimmed(value, shape.length).broadcastTo(shape);
  const added = expandedAxes(order, common.length);
  const full = added.length > 0 ? wide.squeeze(added) : wide;
  const ranges = order.filter(
    (item): item is Extract<Item, { kind: "range" }> => item !== "lists" && item.kind === "range",
  );
  const before = order.slice(0, order.indexOf("lists")).filter((item) => (item as Item).kind === "range").length;
  const position = (i: number) => (i < before ? i : i + common.length);
  const partial = ranges.flatMap((item, i) => (item.whole ? [] : [i]));
  const wholes = ranges.flatMap((item, i) => (item.whole ? [i] : []));
  const permutation = [...common.map((_, i) => before + i), ...partial.map(position), ...wholes.map(position)];
  const ordered = full.transpose(...permutation);

  const dims = [...common, ...partial.map((i) => ranges[i]!.range.length)];
  const beside = (indices: Tensor, lead: number, trail: number) =>
    indices.reshape([...new Array<number>(lead).fill(1), ...indices.shape, ...new Array<number>(trail).fill(1)]);
  const indices = lists.map((list) => beside(list.indices, 0, partial.length));
  const axes = lists.map((list) => list.axis);
  partial.forEach((i, nth) => {
    const { range, axis } = ranges[i]!;
    const positions = arange(range.start, range.start + range.length * range.step, range.step);
    indices.push(beside(positions, common.length + nth, partial.length - nth - 1));
    axes.push(axis);
  });

  const updates = ordered.reshape([...dims, ...x.shape.map((size, axis) => (axes.includes(axis) ? 1 : size))]);
  const handles = indices.map((tensor) => tensor.handle);
  return wrap(scatters[update](x.handle, handles, updates.handle, axes));
}

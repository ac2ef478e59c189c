/** Values of any length between the processes of a group. All of them must call these, in the same order. */
import { array, zeros } from "./creation";
import { evaluate } from "./devices";
import { allGather, allMax, allSum, type Group } from "./distributed";
import type { Dtype } from "./dtype";
import { scope } from "./scope";
import type { Tensor } from "./tensor";

/** Each rank's value, by rank: anything that JSON can hold. */
export function gatherJson<T>(group: Group, value: T): T[] {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  if (group.size === 1) return [value];
  const [longest, lengths] = scope(() => {
    const own = array([bytes.length], "int32");
    const longest = allMax(own, { group }).item();
    return [longest, [...allGather(own, { group }).toArray()].map(Number)] as const;
  });
  const padded = new Uint8Array(longest);
  padded.set(bytes);
  const all = scope(() => allGather(array(padded), { group }).toArray() as Uint8Array);
  return lengths.map((length, rank) =>
    JSON.parse(new TextDecoder().decode(all.subarray(rank * longest, rank * longest + length))),
  );
}

/** The bytes of rank `source`, on all ranks; the others' own are not looked at. */
export function broadcast(group: Group, bytes: Uint8Array | null, source = 0): Uint8Array {
  if (group.size === 1) return bytes!;
  const isSource = group.rank === source;
  const length = scope(() => allSum(array([isSource ? bytes!.length : 0], "int32"), { group }).item());
  if (length === 0) return new Uint8Array(0);
  return scope(() => {
    const own = isSource ? array(bytes!) : zeros([length], "uint8");
    return allSum(own, { group }).toArray() as Uint8Array;
  });
}

/** The value of rank `source`, on all ranks. */
export function broadcastJson<T>(group: Group, value: T | null, source = 0): T {
  const own = group.rank === source ? new TextEncoder().encode(JSON.stringify(value)) : null;
  return JSON.parse(new TextDecoder().decode(broadcast(group, own, source)));
}

/** A tensor without what is in it. */
export interface ToldTensor {
  shape: readonly number[];
  dtype: Dtype;
}

/** The tensor of rank `source`, evaluated, on all ranks, which know its form. The caller disposes of it. */
export function broadcastTensor(group: Group, own: Tensor | null, { shape, dtype }: ToldTensor, source = 0): Tensor {
  const tensor = scope(() => allSum(group.rank === source ? own! : zeros(shape, dtype), { group }));
  evaluate(tensor);
  return tensor;
}

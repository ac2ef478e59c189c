/** How far one prediction is from another. Kullback & Leibler 1951, doi:10.1214/aoms/1177729694. */
import { availableParallelism } from "node:os";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";

/** Enough for a GPU to be busy with; and not so many parts that starting them would take longer than their sums. */
const mostOf = ({ size }: Tensor) => Math.max(2 ** 18, size / 32);

let streams: (mx.Stream | null)[] = [];

/**
 * Where parts are computed side by side. On a CPU an operation on logits takes one core, and a stream another: with one
 * stream the others would wait for most of a step. A GPU needs no more than the usual one, which is null.
 */
function sideBySide(): readonly (mx.Stream | null)[] {
  if (mx.defaultDevice() === "gpu") return [null];
  if (streams.length === 0) {
    const others = Math.min(availableParallelism(), mostStreams) - 1;
    streams = [null, ...Array.from({ length: others }, () => mx.newStream("cpu"))];
  }
  return streams;
}

/** More would be waiting for memory. */
const mostStreams = 4;

/** log softmax of logits (…, V), cooled: float32 */
function logProbabilities(logits: Tensor, temperature: number): Tensor {
  const cooled = logits.astype("float32").multiply(1 / temperature);
  return cooled.subtract(cooled.logsumexp({ axis: -1, keepdims: true }));
}

/**
 * KL(teacher ‖ student) at each position: logits (…, V) of both, divided by the temperature → (…), float32. The gradient
 * is the student's alone. Of probabilities, in either pass, no more are in memory at once than `most` on each of a few streams (but a position's):
 * with large vocabularies all of them would take more than the model.
 */
export function klDivergence(
  student: Tensor,
  teacher: Tensor,
  { temperature = 1, most = mostOf(student) } = {},
): Tensor {
  const vocabSize = student.dim(-1);
  const count = student.size / vocabSize;
  const step = Math.max(1, Math.floor(most / vocabSize));
  /** Joins what `of` makes of the log probabilities of some positions after the others. */
  const joined = (logits: Tensor[], of: (q: Tensor, p: Tensor, positions: mx.Slice) => Tensor) => {
    const parts: Tensor[] = [];
    const beside = sideBySide();
    const part = (from: number) => {
      const positions = mx.slice(from, from + step);
      // Only when the part before on this stream is done, or MLX might compute all at once.
      const some = mx.depends(
        logits.map((x) => x.at(positions)),
        parts.slice(-beside.length).slice(0, parts.length < beside.length ? 0 : 1),
      );
      const [q, p] = some.map((x) => logProbabilities(x, temperature)) as [Tensor, Tensor];
      return of(q, p, positions);
    };
    for (let from = 0; from < count; from += step) {
      const stream = beside[parts.length % beside.length]!;
      parts.push(stream ? mx.withStream(stream, () => part(from)) : part(from));
    }
    return mx.concatenate(parts);
  };
  const divergence = mx.customFunction(
    (...logits) => joined(logits, (q, p) => p.exp().multiply(p.subtract(q)).sum({ axis: -1 })),
    {
      vjp(logits, [cotangent]) {
        const gradient = joined(logits, (q, p, positions) => {
          const weights = cotangent!.at(positions).divide(temperature).expandDims(-1);
          return q.exp().subtract(p.exp()).multiply(weights).astype(logits[0]!.dtype);
        });
        return [gradient, mx.zerosLike(logits[1]!)];
      },
    },
  );
  const [losses] = divergence(...[student, teacher].map((x) => x.reshape(count, vocabSize)));
  return losses!.reshape(student.shape.slice(0, -1));
}

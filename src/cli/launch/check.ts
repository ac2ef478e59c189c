/** A rank of `launch --check`: measures how fast each pair of ranks talks, and compares what they are. */
import { hostname } from "node:os";
import { version } from "../../../package.json";
import * as mx from "../../mlx";
import { gatherJson } from "../../mlx/group-messages";
import { joinPeerMemory } from "../../mlx/peer-memory";
import type { Output } from "../output";

export interface PairFigures {
  from: number;
  to: number;
  /** Half of the time that a small message takes there and back, in µs. */
  latency_us: number;
  /** GB/s of large messages one way. */
  bandwidth: number;
}

interface Member {
  host: string;
  version: string;
  device: string;
  memory: number;
}

const small = { elements: 1, rounds: 200 };
const large = { elements: 4 << 20, rounds: 4 };

/** All ranks call it; the first one prints. */
export function checkAsRank(out: Output): void {
  const group = mx.distributed.init({ strict: true });
  const device = mx.defaultDevice();
  const own: Member = { host: hostname(), version, device, memory: Number(mx.availableMemory()) };
  const members = gatherJson(group, own);
  const pairs: PairFigures[] = [];
  for (let from = 0; group.sends && from < group.size; from++) {
    for (let to = from + 1; to < group.size; to++) {
      const [figures] = gatherJson(group, measurePair(group, from, to)).filter((one) => one !== null);
      pairs.push(figures!);
    }
  }
  const byNccl = group.sends ? null : measureSum(group);
  const without = byNccl && joinPeerMemory(group);
  const everyone = byNccl && without !== null ? byNccl : measureSum(group);
  for (const [rank, { host, version, device, memory }] of members.entries()) {
    out.text(`rank ${rank}: ${host}, mlxlm ${version}, ${device}, ${(memory / 1e9).toFixed(1)} GB free\n`);
  }
  for (const { from, to, latency_us, bandwidth } of pairs) {
    out.text(`${from} - ${to}: ${latency_us.toFixed(1)} µs, ${bandwidth.toFixed(3)} GB/s\n`);
  }
  if (byNccl) {
    out.text(
      `NCCL alone: ${byNccl.latency_us.toFixed(1)} µs for 16 KB, ${byNccl.bandwidth.toFixed(3)} GB/s for 16 MB\n`,
    );
    out.text(without === null ? "sums go through the GPUs' memory\n" : `sums go by NCCL: ${without}\n`);
  }
  out.text(
    `sum over all: ${everyone.latency_us.toFixed(1)} µs for 16 KB, ${everyone.bandwidth.toFixed(3)} GB/s for 16 MB\n`,
  );
  const versions = new Set(members.map(({ version }) => version));
  if (versions.size > 1) out.warn(`the ranks have different versions of mlxlm: ${[...versions].join(", ")}`);
  out.result({ members, pairs, sum: everyone, ...(byNccl && { nccl: byNccl, peer_memory: without === null }) });
}

/** Seconds of one round there and back between two ranks; the others wait. */
function pingPong(group: mx.distributed.Group, from: number, to: number, size: typeof small): number {
  const { rank } = group;
  const message = mx.zeros([size.elements]);
  const round = () =>
    mx.scope(() => {
      const send = (there: number) => mx.eval(mx.distributed.send(message, there, { group }));
      const receive = (there: number) => mx.eval(mx.distributed.recvLike(message, there, { group }));
      if (rank === from) {
        send(to);
        receive(to);
      } else {
        receive(from);
        send(from);
      }
    });
  mx.eval(message);
  round();
  const start = performance.now();
  for (let i = 0; i < size.rounds; i++) round();
  return (performance.now() - start) / size.rounds / 1000;
}

function measurePair(group: mx.distributed.Group, from: number, to: number): PairFigures | null {
  if (group.rank !== from && group.rank !== to) return null;
  const latency = pingPong(group, from, to, small) / 2;
  const bytes = large.elements * 4;
  const seconds = pingPong(group, from, to, large) / 2;
  return group.rank === from ? { from, to, latency_us: latency * 1e6, bandwidth: bytes / seconds / 1e9 } : null;
}

/** Sums one behind the other, as a model's layers have them: what the host does for one is hidden behind those before. */
const chain = 16;

/** What a layer's sum costs: of 16 KB as for one token, and of 16 MB as for a prompt. */
function measureSum(group: mx.distributed.Group): Pick<PairFigures, "latency_us" | "bandwidth"> {
  const time = (elements: number, rounds: number) => {
    const x = mx.zeros([elements]);
    const round = () =>
      mx.scope(() => {
        let sum = x;
        for (let i = 0; i < chain; i++) sum = mx.distributed.allSum(sum, { group });
        mx.eval(sum);
      });
    mx.eval(x);
    round();
    const start = performance.now();
    for (let i = 0; i < rounds; i++) round();
    return (performance.now() - start) / rounds / chain / 1000;
  };
  const bytes = large.elements * 4;
  return { latency_us: time(4096, small.rounds) * 1e6, bandwidth: bytes / time(large.elements, large.rounds) / 1e9 };
}

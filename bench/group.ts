/** The ranks that a bench runs on: `ranks.ts` starts them. */
import * as mx from "../src/mlx";
import { isLaunched } from "../src/mlx/group-environment";
import { joinPeerMemory } from "../src/mlx/peer-memory";

/** Null where this process is alone. */
export function joinedGroup(): mx.distributed.Group | null {
  if (!isLaunched()) return null;
  const group = mx.distributed.init({ strict: true });
  // Ranks that share a GPU exchange through its memory too: slowly, for tests.
  const problem = group.sends && process.env.MLXLM_SHARED_GPU !== "1" ? null : joinPeerMemory(group);
  if (problem) console.error(`not through the GPUs' memory: ${problem}`);
  return group;
}

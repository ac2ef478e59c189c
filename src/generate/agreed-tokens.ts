/**
 * Tokens that several processes go on with: those of the first one. Hosts of different kinds may compute another last bit,
 * and so choose another token.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { isLaunched } from "../mlx/group-environment";
import { drawsAs, type Sampler } from "../sample";

/** Token ids (B) → what the first process has in their place. All call it equally often. */
export function agreedTokens(tokens: Tensor): Tensor {
  const group = mx.distributed.init({ strict: true });
  const own = tokens.astype("uint32");
  // The others wait for the model too: nothing else would have it computed.
  const told = group.rank === 0 ? own : mx.depends([mx.zerosLike(own)], [own])[0]!;
  return mx.distributed.allSum(told, { group });
}

/** What the first process draws, on all of them; `own` itself where there is one process. It drops tokens where `own` does. */
export function agreedSampler(own: Sampler): Sampler {
  if (!isLaunched()) return own;
  const { rank } = mx.distributed.init({ strict: true });
  const none = (logprobs: Tensor) => mx.depends([mx.zeros([logprobs.dim(0)], "uint32")], [logprobs])[0]!;
  return drawsAs((logprobs) => agreedTokens(rank === 0 ? own(logprobs) : none(logprobs)), own);
}

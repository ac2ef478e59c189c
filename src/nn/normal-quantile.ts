/** Quantiles of the normal distribution. */
import * as mx from "../mlx";

/** What a share of its numbers is below, in units of its deviation. @param share between 0 and 1 */
export const normalQuantile = (share: number): number =>
  mx.scope(
    () =>
      mx
        .erfinv(mx.array(2 * share - 1))
        .multiply(Math.SQRT2)
        .item() as number,
  );

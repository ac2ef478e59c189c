/**
 * On the first of several processes: who speaks with the others. What takes several messages is not interrupted, for the
 * others hear one thing after the other.
 */
import { isLaunched } from "../../mlx/group-environment";

let last: Promise<unknown> = Promise.resolve();
let asked = 0;

/** How many turns have been asked for. */
export const turnsAsked = (): number => asked;

/** Does the work when all that was asked for before is done; at once where there is one process. A turn within a turn would never come. */
export async function inTurn<T>(work: () => T | Promise<T>): Promise<T> {
  if (!isLaunched()) return await work();
  asked++;
  const turn = last.then(work);
  last = turn.catch(() => {});
  return await turn;
}

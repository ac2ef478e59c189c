/** How long work may hold the event loop: shorter than a person notices, longer than a step of a small model. */
const longestTurn = 30;

let turnBegan = performance.now();

/**
 * Lets signals, timers and streams have a turn when the last one is a while ago. Long work awaits this between its
 * steps: awaiting promises that are already settled never lets a Ctrl-C through.
 */
export async function breathe(): Promise<void> {
  if (performance.now() - turnBegan < longestTurn) return;
  await new Promise<void>((resolve) => setImmediate(resolve));
  turnBegan = performance.now();
}

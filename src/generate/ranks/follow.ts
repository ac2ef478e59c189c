/** The processes beside the first one, which is asked: they do what it says, and draw no tokens. */
import { UserError } from "../../errors";
import { breathe } from "../../macrotask";
import { hiddenStates } from "../hidden-states";
import { dispose } from "../prefix-store";
import { type Followed, FollowedModel } from "./followed-model";
import { heard, type ToldModel } from "./orders";

/** What work that all processes do gives; null where it has failed on all of them: the first one says so. */
async function unlessRefused<T>(work: () => T | Promise<T>): Promise<T | null> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof UserError) return null;
    throw error;
  }
}

/**
 * Does what the first process says, until it says that this is the end.
 * @param open fails on all processes or on none
 */
export async function follow(open: (source: ToldModel) => Promise<Followed>): Promise<void> {
  const models = new Map<number, FollowedModel>();
  try {
    while (true) {
      const order = heard();
      if (order.type === "end") return;
      if (order.type === "open") {
        const opened = await unlessRefused(() => open(order.source));
        if (opened) models.set(order.model, new FollowedModel(opened));
        continue;
      }
      const model = models.get(order.model);
      if (!model) throw new Error(`there is no model ${order.model} on this rank`);
      if (order.type === "close") {
        model.dispose();
        models.delete(order.model);
      } else if (order.type === "adapt") await unlessRefused(() => model.adapt(order.adapter, order.folder));
      else if (order.type === "unadapt") model.unadapt(order.adapter);
      else if (order.type === "batch") model.sideBySide(order);
      else if (order.type === "alone") model.oneByOne();
      else if (order.type === "step") model.step(order);
      else if (order.type === "answer") await model.answer(order);
      else if (order.type === "next") await model.next(order.answer, order.count);
      else if (order.type === "states") await unlessRefused(() => hiddenStates(model.model, order.tokens).dispose());
      else if (order.type === "gather") dispose(model.gathered(order.changes, order.cache));
      else model.spread(order.changes);
      // What ends this process is heard between two steps.
      await breathe();
    }
  } finally {
    for (const model of models.values()) model.dispose();
  }
}

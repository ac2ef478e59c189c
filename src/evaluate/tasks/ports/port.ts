/** The kinds of functions that tasks refer to. */
import type { Row } from "../../../data/rows";
import type { PythonRandom } from "../../../mersenne";

/** What functions see beside their arguments. */
export interface PortContext {
  /** Python's own random numbers, which the functions of all tasks draw from. */
  random: PythonRandom;
}

/** A function as it stands in a task's file; its arguments are those of its key there. */
export type Port = (...args: never[]) => unknown;

export type ProcessDocs = (docs: readonly Row[], context: PortContext) => Row[];
export type FromDoc = (doc: Row) => unknown;
/** The results are what `Task.score` is given. */
export type ProcessResults = (doc: Row, results: readonly unknown[]) => Record<string, unknown>;
export type Aggregate = (items: readonly unknown[]) => number;

export type PortModule = Readonly<Record<string, Port>>;

/** How it is shown, for every field that a route takes, that the field acts. */
import type { z } from "zod";

export type Body = Record<string, unknown>;

export type Row =
  /** A change of the route's usual request that changes what comes of it. */
  | { change: Body; of?: Body; status?: number }
  /** A test that shows it: the file under src/serve, and the test's name. */
  | { shown: readonly [file: string, name: string] }
  /** Why there is nothing that it could change. */
  | { nothing: string };

export interface Route {
  path: string;
  schema: z.ZodObject;
  usual: Body;
  fields: Record<string, Row>;
}

/** @param of the request that is changed, where it is not the usual one */
export const acts = (change: Body, of?: Body): Row => ({ change, of });
/** The changed request is refused, where the other one is not. */
export const refuses = (status: number, change: Body, of?: Body): Row => ({ change, of, status });
export const shown = (file: string, name: string): Row => ({ shown: [file, name] });
export const nothing = (why: string): Row => ({ nothing: why });

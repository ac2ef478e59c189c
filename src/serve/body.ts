/** A request's body: read within a limit and a time, as JSON, by a schema. What is not understood is refused by name. */
import type { z } from "zod";
import { nearest } from "../nearest";
import { ApiError, invalid } from "./api-error";

export interface BodyLimits {
  /** Bytes. */
  maxBody: number;
  /** Seconds until all of it must be there. */
  bodyTimeout: number;
}

/** @throws ApiError 413 beyond the limit, 408 beyond the time, 415 for a packed body, 400 for what is no JSON object */
export async function readJsonBody(request: Request, limits: BodyLimits): Promise<Record<string, unknown>> {
  const encoding = request.headers.get("content-encoding") ?? "identity";
  if (encoding !== "identity")
    throw new ApiError(415, `bodies in ${JSON.stringify(encoding)} are not taken: send plain JSON`);
  const bytes = await readBytes(request, limits);
  if (bytes.length === 0) throw invalid("the request has no body: a JSON object was expected");
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw invalid("the body is not UTF-8");
  }
  let value: unknown;
  try {
    value = text.includes('"__proto__"') ? JSON.parse(text, withoutPrototype) : JSON.parse(text);
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw invalid(error instanceof RangeError ? "the body is nested too deep" : "the body is not JSON");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw invalid("the body is no JSON object");
  return value as Record<string, unknown>;
}

/** A schema would leave such a key out without a word. */
function withoutPrototype(key: string, value: unknown): unknown {
  if (key === "__proto__") throw invalid('"__proto__" cannot be the name of anything in a request', "__proto__");
  return value;
}

async function readBytes(request: Request, { maxBody, bodyTimeout }: BodyLimits): Promise<Uint8Array> {
  const tooLarge = () => new ApiError(413, `the body is larger than the ${maxBody} bytes that are taken`);
  if (Number(request.headers.get("content-length")) > maxBody) throw tooLarge();
  if (!request.body) return new Uint8Array();
  const reader = request.body.getReader();
  const { promise: late, reject } = Promise.withResolvers<never>();
  late.catch(() => {});
  const timer = setTimeout(
    () => reject(new ApiError(408, `the body was not there after ${bodyTimeout} seconds`)),
    bodyTimeout * 1000,
  );
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await Promise.race([reader.read(), late]);
      if (done) return Buffer.concat(chunks);
      size += value.length;
      if (size > maxBody) throw tooLarge();
      chunks.push(value);
    }
  } catch (error) {
    void reader.cancel().catch(() => {});
    if (error instanceof ApiError) throw error;
    throw invalid("the body could not be read");
  } finally {
    clearTimeout(timer);
  }
}

/**
 * The value by a schema. Fields that are null count as absent: clients write so what they do not set.
 * @throws ApiError 400 that names the field
 */
export function parsed<S extends z.ZodObject>(schema: S, value: Record<string, unknown>): z.infer<S> {
  const given = Object.fromEntries(Object.entries(value).filter(([, one]) => one !== null));
  const result = schema.safeParse(given);
  if (result.success) return result.data;
  let issue = result.error.issues[0]!;
  let path = [...issue.path];
  while (issue.code === "invalid_union") {
    // Of the forms that a value may have, the one that it came closest to.
    const [closest] = issue.errors.toSorted((a, b) => Number(isOfType(b)) - Number(isOfType(a)) || depth(b) - depth(a));
    if (!closest?.[0]) break;
    issue = closest[0];
    path = [...path, ...issue.path];
  }
  if (issue.code === "unrecognized_keys") {
    const [key] = issue.keys;
    const param = [...path, key].join(".");
    const [similar] = path.length === 0 ? nearest(key!, Object.keys(schema.shape), 1) : [];
    const guess = similar ? `: did you mean "${similar}"?` : "";
    throw invalid(`"${param}" is not supported by this server${guess}`, param, "unsupported_parameter");
  }
  const param = path.join(".");
  const missing = issue.code === "invalid_type" && valueAt(given, path) === undefined;
  throw invalid(missing ? `"${param}" must be given` : `"${param}": ${issue.message}`, param, "invalid_value");
}

/** Whether the value is of a form's type, and something else about it is wrong. */
const isOfType = (issues: readonly z.core.$ZodIssue[]) =>
  issues.every(({ code }) => code === "too_big" || code === "too_small");

const depth = (issues: readonly z.core.$ZodIssue[]) => Math.max(0, ...issues.map(({ path }) => path.length));

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown> | undefined)?.[key], value);
}

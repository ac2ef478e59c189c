/** What is known of one row: question, answers, scores, in the schema of the harness's sample files. */
import { createHash } from "node:crypto";
import { toJson } from "../../text/template-json";
import { float, str, toValue } from "../../text/template-values";
import type { Request } from "./request";
import type { Scores } from "./score";
import type { Task } from "./task";

export interface Sample {
  doc_id: number;
  doc: Record<string, unknown>;
  target: string;
  /** By `gen_args_N` and `arg_N`. */
  arguments: Record<string, Record<string, unknown>>;
  resps: unknown;
  filtered_resps: unknown;
  filter: string;
  metrics: string[];
  doc_hash: string;
  prompt_hash: string;
  target_hash: string;
  [metric: string]: unknown;
}

export interface Answered {
  task: Task;
  id: number;
  requests: readonly Request[];
  /** Of each request all answers. */
  responses: readonly (readonly unknown[])[];
  /** And what a filter made of them. */
  filtered: readonly unknown[];
  filter: string;
  scores: Scores;
}

const digest = (text: string) => createHash("sha256").update(text).digest("hex");

/** As Python's json.dumps(…, indent=2, ensure_ascii=False). */
const layout = { indent: "  ", separators: null, sortKeys: false, ensureAscii: false };

export function sampleOf({ task, id, requests, responses, filtered, filter, scores }: Answered): Sample {
  const doc = task.docs[id]!;
  const args = requests.map(argumentsOf);
  const target = task.targetText(doc);
  return {
    doc_id: id,
    doc: doc.row,
    target,
    arguments: Object.fromEntries(
      args.map((all, i) => [`gen_args_${i}`, Object.fromEntries(all.map((one, j) => [`arg_${j}`, one]))]),
    ),
    resps: texts(responses),
    filtered_resps: texts(filtered),
    filter,
    metrics: Object.keys(scores),
    doc_hash: digest(toJson(doc.value, layout)),
    prompt_hash: digest(String(args[0]![0])),
    target_hash: digest(target),
    ...scores,
  };
}

export function argumentsOf(request: Request): unknown[] {
  switch (request.type) {
    case "loglikelihood":
      return [request.context, request.continuation];
    case "loglikelihood_rolling":
      return [request.text];
    case "generate_until":
      return [request.context, request.options];
  }
}

/** All that lists hold as Python prints it; log-probabilities are floats. */
function texts(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(texts);
  return str(typeof value === "number" ? float(value) : toValue(value));
}

/** Python literals as JavaScript's values. */
import { parseLiteral } from "../../text/tools/literal";

/** ast.literal_eval; undefined for a text that is no literal. */
export const plainLiteral = (text: string): unknown => plain(parseLiteral(text));

function plain(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map(plain);
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, item]) => [String(key), plain(item)]));
  return value;
}

/** Numbers as Python reads and prints them. */
import { strip } from "./python-text";

/** More digits than this Python does not read or write as an int. */
export const MAX_DIGITS = 4300;

/** These functions strip less than str.strip(): the separators U+001C to U+001F stay. */
const SPACES =
  " \t\n\v\f\r\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000";
const INTEGER = /^[+-]?[0-9](?:_?[0-9])*$/;
const DIGITS = "[0-9](?:_?[0-9])*";
const FLOAT = new RegExp(`^[+-]?(?:${DIGITS}(?:\\.(?:${DIGITS})?)?|\\.${DIGITS})(?:e[+-]?${DIGITS})?$`, "i");
const NAMED = /^([+-]?)(?:(inf|infinity)|nan)$/i;

/** int(text), or undefined where Python raises ValueError. */
export function integer(text: string): bigint | undefined {
  const plain = asciiDigits(strip(text, SPACES));
  if (!INTEGER.test(plain)) return undefined;
  const digits = plain.replaceAll("_", "").replace("+", "");
  return digits.length > MAX_DIGITS ? undefined : BigInt(digits);
}

/** float(text), or undefined where Python raises ValueError. */
export function float(text: string): number | undefined {
  const plain = asciiDigits(strip(text, SPACES));
  const named = NAMED.exec(plain);
  if (named) return named[2] ? (named[1] === "-" ? -Infinity : Infinity) : NaN;
  return FLOAT.test(plain) ? Number(plain.replaceAll("_", "")) : undefined;
}

/** int(value) where that is the same number, else the float. */
export function narrow(value: number): bigint | number {
  return Number.isInteger(value) ? BigInt(value) : value;
}

/** Digits of any script as ASCII's; each script's ten stand together, from zero on. */
function asciiDigits(text: string): string {
  return text.replace(/\p{Nd}/gu, (digit) => {
    const code = digit.codePointAt(0)!;
    let first = code;
    while (/\p{Nd}/u.test(String.fromCodePoint(first - 1))) first--;
    return String((code - first) % 10);
  });
}

/** The shortest digits that give this float, with an exponent where Python writes one. */
export function floatText(value: number): string {
  if (Object.is(value, -0)) return "-0.0";
  const [digits = "", exponent = "0"] = value.toExponential().split("e");
  const power = Number(exponent);
  if (power < -4 || power >= 16) {
    return `${digits}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
  }
  return Number.isInteger(value) ? `${value}.0` : String(value);
}

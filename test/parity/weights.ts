/**
 * Weights by formula: a value depends on the parameter's name, its index and a salt, and on nothing else.
 * test/oracle/weights.py is the same formula, bit for bit: integers modulo 2^32, floats rounded to float32 once.
 */

/** FNV-1a, 32 bits, of the text's UTF-8 bytes. */
function fnv1a(text: string): number {
  let h = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) h = Math.imul(h ^ byte, 0x01000193);
  return h >>> 0;
}

/** `size` values in [-1, 1), multiples of 2^-23: a Weyl sequence from the key, mixed as in MurmurHash3. */
export function uniform(key: string, size: number): Float32Array {
  const start = fnv1a(key);
  const values = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    let x = (start + Math.imul(i, 0x9e3779b9)) | 0;
    x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    x ^= x >>> 16;
    values[i] = (x >>> 8) / 2 ** 23 - 1;
  }
  return values;
}

/**
 * From this salt on biases of norms are like all biases, and the names of GPT-2 and others are known; tables of experts have
 * those of eight.
 */
const named = 1000;

const otherWide = ["wte", "embed_in", "embed_out", "tok_embeddings", "output.weight"];

/** Centre and spread by kind: norms lie around 1, biases are small, matrices keep the scale of their input. */
function scale(name: string, shape: readonly number[], salt: number): [number, number] {
  const isNamed = salt >= named;
  if (isNamed && name.endsWith("tid2eid")) return [4, 4];
  if (isNamed && name.endsWith("bias")) return [0, 0.125];
  // DBRX calls a whole part of its layers so.
  if (name.replace("norm_attn_norm.", "").includes("norm") || (isNamed && /ln_|\.ln\./.test(name))) return [1, 0.25];
  if (name.endsWith("bias")) return [0, 0.125];
  const wide = ["embed_tokens", "lm_head", ...(isNamed ? otherWide : [])].some((part) => name.includes(part));
  return [0, (wide ? 2 : 1.5) * Math.sqrt(3 / (shape.at(-1) ?? 1))];
}

/** The parameter's values in row-major order. */
export function weight(name: string, shape: readonly number[], salt = 0): Float32Array {
  const [centre, spread] = scale(name, shape, salt).map(Math.fround) as [number, number];
  const size = shape.reduce((product, dim) => product * dim, 1);
  const values = uniform(`${salt}/${name}`, size);
  for (let i = 0; i < size; i++) values[i] = centre + Math.fround(values[i]! * spread);
  return values;
}

/**
 * SentencePiece's normalization table: base64 of a trie's size in bytes, the trie (a double array, uint32 each), and the
 * texts that it points to, which end in zeros. The native library follows it without looking.
 */

/** Whether every way through the trie stays inside of it, and ends at a text. */
export function hasSoundTrie(encoded: unknown): boolean {
  if (typeof encoded !== "string" || !/^[A-Za-z0-9+/]*={0,2}$/.test(encoded) || encoded.length % 4 !== 0) return false;
  const bytes = Buffer.from(encoded, "base64");
  if (bytes.length < 4) return false;
  const trieBytes = bytes.readUInt32LE(0);
  if (trieBytes === 0 || trieBytes % 4 !== 0 || trieBytes > bytes.length - 4) return false;
  const texts = bytes.subarray(4 + trieBytes);
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(texts);
  } catch {
    return false;
  }
  const units = new Uint32Array(new Uint8Array(bytes.subarray(4, 4 + trieBytes)).buffer);
  return waysEnd(units, texts);
}

/** What a unit says: how far its children lie, whether a text ends there, which byte leads to it. */
const offset = (unit: number) => (unit >>> 10) << ((unit & 0x200) >>> 6);
const hasLeaf = (unit: number) => ((unit >>> 8) & 1) === 1;
const label = (unit: number) => (unit & 0x800000ff) >>> 0;
const value = (unit: number) => unit & 0x7fffffff;

function waysEnd(units: Uint32Array, texts: Uint8Array): boolean {
  const bases = [offset(units[0]!)];
  const seen = new Set(bases);
  while (bases.length > 0) {
    const base = bases.pop()!;
    for (let byte = 1; byte < 256; byte++) {
      const place = base ^ byte;
      const unit = units[place];
      // Which child it is stands in the child: each place is read.
      if (unit === undefined) return false;
      if (label(unit) !== byte) continue;
      const next = place ^ offset(unit);
      if (hasLeaf(unit) && !isText(units[next], texts)) return false;
      if (!seen.has(next)) {
        seen.add(next);
        bases.push(next);
      }
    }
  }
  return true;
}

function isText(leaf: number | undefined, texts: Uint8Array): boolean {
  if (leaf === undefined) return false;
  const start = value(leaf);
  const continues = start < texts.length && (texts[start]! & 0xc0) === 0x80;
  return start <= texts.length && !continues;
}

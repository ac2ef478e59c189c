/** The characters that stand for bytes in the vocabularies of tokenizers on bytes. */

/** GPT-2 writes a byte as itself where that is a printable Latin-1 character, else as one from U+0100 on. */
export const BYTE_OF_CHARACTER = ((): Map<string, number> => {
  const isPrintable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
  const map = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) map.set(String.fromCharCode(isPrintable(byte) ? byte : next++), byte);
  return map;
})();

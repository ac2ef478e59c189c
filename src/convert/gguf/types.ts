/** The element types of GGUF: how many numbers share a block of how many bytes. */

export interface ElementType {
  name: string;
  /** Numbers in a block. */
  block: number;
  /** Bytes of a block. */
  bytes: number;
}

/** Types that can be read, by code. */
const readable = new Map<number, ElementType>([
  [0, { name: "F32", block: 1, bytes: 4 }],
  [1, { name: "F16", block: 1, bytes: 2 }],
  [2, { name: "Q4_0", block: 32, bytes: 18 }],
  [3, { name: "Q4_1", block: 32, bytes: 20 }],
  [8, { name: "Q8_0", block: 32, bytes: 34 }],
  [30, { name: "BF16", block: 1, bytes: 2 }],
]);

/** Names of the others, for the refusal. */
const others: Readonly<Record<number, string>> = {
  6: "Q5_0",
  7: "Q5_1",
  9: "Q8_1",
  10: "Q2_K",
  11: "Q3_K",
  12: "Q4_K",
  13: "Q5_K",
  14: "Q6_K",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  20: "IQ4_NL",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  24: "I8",
  25: "I16",
  26: "I32",
  27: "I64",
  28: "F64",
  29: "IQ1_M",
  34: "TQ1_0",
  35: "TQ2_0",
  39: "MXFP4",
};

export const readableNames: readonly string[] = [...readable.values()].map(({ name }) => name);

export const elementType = (code: number): ElementType | undefined => readable.get(code);

export const elementTypeName = (code: number): string => readable.get(code)?.name ?? others[code] ?? `type ${code}`;

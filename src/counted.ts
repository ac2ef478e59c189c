/** "1 token", "2 tokens": a count with its noun, which takes an s. */
export const counted = (count: number, what: string) => `${count} ${what}${count === 1 ? "" : "s"}`;

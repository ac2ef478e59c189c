/** Times and sizes as people write them. */

const units = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86_400 } as const;

/** Seconds: "5m", "1h30m", "90"; negative: for ever. null for what is no time. */
export function duration(text: string): number | null {
  if (/^-?\d+(\.\d+)?$/.test(text)) return Number(text);
  const parts = [...text.matchAll(/(-?\d+(?:\.\d+)?)(ms|s|m|h|d)/g)];
  if (parts.length === 0 || parts.map(([all]) => all).join("") !== text) return null;
  return parts.reduce((sum, [, count, unit]) => sum + Number(count) * units[unit as keyof typeof units], 0);
}

const prefixes = ["", "K", "M", "G", "T"] as const;

/** Bytes: "2GB", "512 MiB", "1e9"; null for what is no size. */
export function byteSize(text: string): number | null {
  const [, count, prefix = "", binary] = /^(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmgt]?)(i?)b?$/i.exec(text.trim()) ?? [];
  if (count === undefined) return null;
  const power = prefixes.indexOf(prefix.toUpperCase() as (typeof prefixes)[number]);
  return Math.floor(Number(count) * (binary ? 1024 : 1000) ** power);
}

/** Whether a model fits, as people read it. */
import type { Fit } from "../evaluate/fit";
import { coloursOf } from "./colour";

/** "5.7 MB", "2.3 GB" */
function size(bytes: number): string {
  const [count, unit] = Math.abs(bytes) < 1e9 ? [bytes / 1e6, "MB"] : [bytes / 1e9, "GB"];
  return `${count >= 100 ? Math.round(count).toLocaleString("en") : count.toFixed(1)} ${unit}`;
}

const tokens = (count: number) => `${count.toLocaleString("en")} tokens`;

/** "4.0 billion" */
function many(count: number): string {
  if (count >= 1e12) return `${(count / 1e12).toFixed(1)} trillion`;
  if (count >= 1e9) return `${(count / 1e9).toFixed(1)} billion`;
  return `${(count / 1e6).toFixed(count >= 1e7 ? 0 : 1)} million`;
}

/** Lines of a name and what is said of it; the verdict comes first. */
export function fitInWords(fit: Fit): string {
  const { bold, good, bad } = coloursOf(1);
  const verdict = fit.fits ? good("fits") : bad("does not fit");
  const lines: [name: string, ...texts: string[]][] = [
    ["type", typeInWords(fit)],
    ["weights", weightsInWords(fit)],
    ...(fit.disk ? [["disk", diskInWords(fit.disk)] as [string, string]] : []),
    ["memory", memoryInWords(fit)],
    ...(fit.context ? [["context", ...contextInWords(fit)] as [string, ...string[]]] : []),
    ...(fit.speed ? [["speed", speedInWords(fit.speed)] as [string, string]] : []),
  ];
  const width = Math.max(...lines.map(([name]) => name.length)) + 2;
  const rows = lines.flatMap(([name, ...texts]) =>
    texts.map((text, i) => `  ${(i === 0 ? name : "").padEnd(width)}${text}`),
  );
  return `${[`${bold(fit.name)}  ${verdict}`, ...rows].join("\n")}\n`;
}

function typeInWords({ model_type: type, supported }: Fit): string {
  if (type === null) return "unknown: its config.json names none";
  return supported ? type : `${type}: models of this type are not supported`;
}

function weightsInWords({ parameters, active_parameters: active, memory }: Fit): string {
  const used = active < 0.9 * parameters ? `, of which a token uses ${many(active)}` : "";
  return `${size(memory.weights)}, ${many(parameters)} parameters${used}`;
}

function diskInWords({ files, size: whole, needed, free, folder, fits }: NonNullable<Fit["disk"]>): string {
  const here = needed < whole ? ` (${size(whole - needed)} of ${size(whole)} are here)` : "";
  const lacks = fits ? "" : `: ${size(needed - free)} too few`;
  return `${size(needed)} to download in ${files} files${here}, ${size(free)} free on ${folder}${lacks}`;
}

function memoryInWords({ memory }: Fit): string {
  const { weights, working, available, device, fits } = memory;
  const needed = `${size(weights + working)} and its cache`;
  const lacks = fits ? "" : `: ${size(weights + working - available)} too few`;
  return `needs ${needed}, ${size(available)} free (${device})${lacks}`;
}

function contextInWords({ context, memory }: Fit): string[] {
  const { largest, limit, steps } = context!;
  const each = steps.map(
    ({ tokens: count, bytes, fits }) => `${tokens(count)}: ${size(bytes)}${fits ? "" : ", too much"}`,
  );
  if (!memory.fits) return each;
  const all = largest === limit ? ", all that it was made for" : "";
  return [`up to ${tokens(largest)} fit${all}`, ...each];
}

function speedInWords({
  tokens_per_second: speed,
  bytes_per_token: bytes,
  bandwidth,
}: NonNullable<Fit["speed"]>): string {
  const busy = bandwidth.busy ? "; the machine is busy, so it may be more" : "";
  const rate = `${size(bandwidth.bytes_per_second)} a second${busy}`;
  return `up to ${speed >= 10 ? Math.round(speed) : speed.toFixed(1)} tokens a second: one reads ${size(bytes)}, at ${rate}`;
}

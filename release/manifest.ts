/** What a release consists of, as a file that installers, the tap and the npm packages are made from. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import { z } from "zod";

const File = z.object({ file: z.string(), size: z.int().positive(), sha256: z.string().regex(/^[0-9a-f]{64}$/) });

export const Artefact = z.object({
  platform: z.string(),
  words: z.string(),
  /** The archive that people download. */
  archive: File,
  /** The executable inside it. */
  executable: File,
  sbom: File,
  /** The machine that built it. */
  builtOn: z.string(),
  /** Where it answered a question of the demo model before it was packed. */
  answered: z.enum(["on such a machine", "under emulation", "not run"]),
});
export type Artefact = z.infer<typeof Artefact>;

export const Manifest = z.object({
  name: z.literal("mlxlm"),
  version: z.string(),
  commit: z.string(),
  time: z.string(),
  bun: z.string(),
  mlx: z.string(),
  artefacts: z.array(Artefact).min(1),
});
export type Manifest = z.infer<typeof Manifest>;

export async function sha256Of(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk);
  return hash.digest("hex");
}

export async function fileFacts(path: string): Promise<z.infer<typeof File>> {
  return { file: basename(path), size: (await stat(path)).size, sha256: await sha256Of(path) };
}

/** A file's line in SHA256SUMS, as sha256sum writes and reads it. */
export const sumLine = ({ file, sha256 }: z.infer<typeof File>) => `${sha256}  ${file}\n`;

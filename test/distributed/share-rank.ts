/** One rank of share.test.ts: shares what rank 1 has, several times. Prints what came of it. */
import { mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../../src/errors";
import { share } from "../../src/hub/share";
import { chunkBytes } from "../../src/hub/share/content";
import * as mx from "../../src/mlx";
import { report } from "./rank-end";

const group = mx.distributed.init({ strict: true });
const own = join(process.argv[2]!, `host-${group.rank}`);
mkdirSync(own, { recursive: true });
process.chdir(own);
process.env.HF_HUB_CACHE = join(own, "hub");

const repo = "org/name";
const root = "hub/models--org--name";
const commits = ["a", "b"].map((digit) => digit.repeat(40));

/** A commit of the repo, in the cache as the hub's client leaves it. */
function commit(name: string, blobs: Record<string, Uint8Array>) {
  for (const folder of ["blobs", "refs", `snapshots/${name}`]) mkdirSync(join(root, folder), { recursive: true });
  writeFileSync(join(root, "refs/main"), name);
  for (const [file, bytes] of Object.entries(blobs)) {
    const blob = Bun.hash(bytes).toString(16);
    writeFileSync(join(root, "blobs", blob), bytes);
    symlinkSync(`../../blobs/${blob}`, join(root, "snapshots", name, file));
  }
}

const bytes = (length: number, seed: number) => Uint8Array.from({ length }, (_, i) => (i * seed) >> 3);
const weights = bytes(chunkBytes + 12_345, 7);
const config = new TextEncoder().encode('{"model_type": "llama"}');

const outcome = async (request: Parameters<typeof share>[1]) => {
  try {
    const { places: _, ...rest } = await share(group, request);
    return rest;
  } catch (error) {
    if (error instanceof UserError)
      return { message: error.message.replaceAll(process.argv[2]!, ""), code: error.code };
    throw error;
  }
};

const isSource = group.rank === 1;
if (isSource) commit(commits[0]!, { "config.json": config, "model.safetensors": weights });
const first = await outcome({ model: repo });
const again = await outcome({ model: repo });
if (isSource) commit(commits[1]!, { "config.json": config, "model.safetensors": bytes(9, 5) });
const update = await outcome({ model: repo });

if (isSource) {
  mkdirSync("data/empty", { recursive: true });
  writeFileSync("data/rows.jsonl", "{}");
  writeFileSync("data/nothing", "");
}
const folder = await outcome({ path: "data", dst: "copy" });
rmSync("data", { recursive: true, force: true });
if (isSource) writeFileSync("one", "1");
const file = await outcome({ path: "one", dst: "other", tmpdir: "elsewhere" });
const same = await outcome({ path: "one", dst: "other" });
if (group.rank === 2) writeFileSync("other", "2");
const different = await outcome({ path: "one", dst: "other" });
const absent = await outcome({ path: "nowhere", model: "org/nothing" });
if (isSource) mkdirSync("bare/inner", { recursive: true });
const bare = await outcome({ path: "bare", dst: "nothing" });
const blocked = await outcome({ path: "one", dst: "copy/rows.jsonl/x" });

const snapshot = (name: string) => {
  const at = join(root, "snapshots", name);
  const facts = readdirSync(at).map((file) => {
    if (!readlinkSync(join(at, file)).startsWith("../../blobs/")) throw new Error(`${file} is no link to a blob`);
    return [file, readFileSync(join(at, file)).length] as const;
  });
  return facts.sort(([a], [b]) => (a < b ? -1 : 1));
};
report({
  outcomes: { first, again, update, folder, file, same, different, absent, bare, blocked },
  snapshots: commits.map(snapshot),
  isWhole: Buffer.from(weights).equals(readFileSync(join(root, "snapshots", commits[0]!, "model.safetensors"))),
  ref: readFileSync(join(root, "refs/main"), "utf8"),
  copy: isSource ? null : readdirSync("copy").sort(),
  left: [...new Bun.Glob("**/.mlxlm-share-*").scanSync({ cwd: own, dot: true, onlyFiles: false })],
  handles: mx.liveHandles(),
});

/**
 * Answers of a hub with something wrong in them: facts, lists of files, files, headers, bodies that are packed or cut.
 * A model is downloaded, a dataset opened, and who may upload is asked. `bun test/fuzz/hub-answers.ts [COUNT] [SEED]`
 */
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openDataset } from "../../src/data/dataset";
import { UserError } from "../../src/errors";
import { resolveModel } from "../../src/hub/resolve";
import { uploadTarget } from "../../src/hub/upload";
import { gitHash } from "../hub-storage";
import { type Dice, dice, pick } from "./dice";
import { fuzzMain, supervise } from "./supervise";

const commit = "0123456789abcdef0123456789abcdef01234567";
const contents: Record<string, Uint8Array<ArrayBuffer>> = {
  "config.json": Buffer.from("{}"),
  "tokenizer.json": Buffer.from('{"a": 1}'),
  "model.safetensors": new Uint8Array(5000).fill(7),
  "default/train/0000.parquet": Buffer.from("PAR1 and no more"),
};

const words = [
  "",
  "a",
  commit,
  "../../../escape",
  "/etc/x",
  "ü",
  "\0",
  "x".repeat(300),
  "{}",
  "main",
  "null",
  "\ud800",
];
const numbers = [0, 1, -1, 0.5, 2, 5000, 5001, 1e9, 1e15, 1e300, 2 ** 53];

function value(roll: Dice, depth = 0): unknown {
  switch (roll(depth > 2 ? 3 : 6)) {
    case 0:
      return pick(roll, words);
    case 1:
      return pick(roll, numbers);
    case 2:
      return pick(roll, [null, true, false]);
    case 3:
      return Array.from({ length: roll(4) }, () => value(roll, depth + 1));
    case 4:
      return Object.fromEntries(
        ["sha", "path", "size", "type", "oid", "__proto__", "name"]
          .slice(roll(7))
          .map((name) => [name, value(roll, depth + 1)]),
      );
    default:
      return { type: "file", path: pick(roll, words), size: pick(roll, numbers), oid: pick(roll, words) };
  }
}

/** A sound value, one of whose parts is often another. */
function altered(roll: Dice, sound: unknown): unknown {
  if (roll(5) === 0) return value(roll);
  if (Array.isArray(sound)) {
    const items = sound.map((item) => (roll(3) === 0 ? altered(roll, item) : item));
    return roll(5) === 0 ? [...items, ...items.slice(roll(2))] : items.slice(roll(8) === 0 ? 1 : 0);
  }
  if (sound === null || typeof sound !== "object") return sound;
  const entries = Object.entries(sound).filter(() => roll(15) > 0);
  return Object.fromEntries(entries.map(([name, item]) => [name, roll(5) === 0 ? altered(roll, item) : item]));
}

const tree = () =>
  Object.entries(contents).map(([path, content]) => ({
    type: "file",
    path,
    size: content.length,
    oid: gitHash(content),
    ...(content.length > 1000
      ? { lfs: { oid: createHash("sha256").update(content).digest("hex"), size: content.length, pointerSize: 130 } }
      : {}),
  }));

const user = { type: "user", name: "me", auth: { type: "access_token", accessToken: { role: "write" } } };

const zeros = Bun.gzipSync(new Uint8Array(40_000_000));

/** Sends a body as it is, packed, cut, or with something else in it. */
function sent(roll: Dice, body: Uint8Array<ArrayBuffer>, status: number, headers: Headers): Response {
  const packing = pick(roll, ["gzip", "deflate", "br", "zstd", "lz4", "gzip, gzip", ""]);
  switch (roll(30)) {
    case 0:
      headers.set("Content-Encoding", packing);
      return new Response(body, { status, headers });
    case 1:
      headers.set("Content-Encoding", "gzip");
      return new Response(roll(10) === 0 ? zeros : Bun.gzipSync(body), { status, headers });
    case 2:
      return new Response(body.slice(0, roll(body.length + 1)), { status, headers });
    case 3:
      return new Response(Buffer.concat([body, body]), { status, headers });
    case 4:
      return new Response(Buffer.from(pick(roll, ["[".repeat(300_000), "\xff\xfe", "<html>", "NaN", '"'])), {
        status,
        headers,
      });
    case 5: {
      const wrong = body.slice();
      if (wrong.length > 0) wrong[roll(wrong.length)]! ^= 1 << roll(8);
      return new Response(wrong, { status, headers });
    }
    default:
      return new Response(body, { status, headers });
  }
}

const oddHeaders: [name: string, values: string[]][] = [
  ["X-Error-Code", ["GatedRepo", "RevisionNotFound", "RepoNotFound", "x"]],
  ["X-Error-Message", ["no", "x".repeat(5000), "\u001b[2J"]],
  ["Content-Range", ["bytes 0-0/5", "bytes 9-1/x", "bytes */0", "x"]],
  ["ETag", ['"x"', "W/", "", "x".repeat(3000)]],
  [
    "Link",
    [
      '<x>; rel="next"',
      "<",
      '<http://127.0.0.1:1/>; rel="next"',
      '<file:///etc/passwd>; rel="next"',
      '</>; rel="next"',
    ],
  ],
  ["X-Linked-Size", ["-1", "x", "1e99"]],
  ["X-Linked-Etag", ["x", ""]],
  ["X-Xet-Hash", ["x", "a".repeat(64)]],
  ["Content-Type", ["text/html", "application/json"]],
];

let roll: Dice = dice(0);
let requests = 0;

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  idleTimeout: 0,
  fetch(request) {
    // However a list goes on, an input ends.
    if (requests++ > 60) return new Response("", { status: 404 });
    const { pathname, origin } = new URL(request.url);
    const headers = new Headers({ ETag: '"x"' });
    if (roll(10) === 0) {
      const [name, values] = pick(roll, oddHeaders);
      headers.set(name, pick(roll, values).replace(/[^\x20-\x7e]/g, ""));
    }
    if (roll(40) === 0) headers.set("Link", `<${origin}${pathname}?page=${requests}>; rel="next"`);
    if (roll(40) === 0) {
      headers.set(
        "Location",
        pick(roll, [origin + pathname, "/x", "file:///etc/passwd", "http://127.0.0.1:1/", "", "http://["]),
      );
      return new Response(null, { status: pick(roll, [301, 302, 307, 308]), headers });
    }
    if (roll(60) === 0) {
      headers.set("Retry-After", pick(roll, ["0", "100", "1e9", "x", "Fri, 01 Jan 2100 00:00:00 GMT", "-5"]));
      return new Response("", { status: pick(roll, [429, 503]), headers });
    }
    const status = roll(15) === 0 ? pick(roll, [201, 206, 400, 401, 403, 404, 409, 410, 416, 418]) : 200;
    const json = (sound: unknown) =>
      sent(roll, Buffer.from(JSON.stringify(roll(3) === 0 ? altered(roll, sound) : sound) ?? ""), status, headers);
    if (pathname.includes("/tree/")) return json(tree());
    if (pathname.includes("whoami")) return json(user);
    if (pathname.startsWith("/api/"))
      return json({ _id: "1", id: "org/name", sha: commit, private: false, gated: false });
    const path = decodeURIComponent(pathname.split(`/${commit}/`)[1] ?? "");
    return sent(roll, contents[path] ?? new Uint8Array(roll(20)), status, headers);
  },
});
server.unref();

const outer = mkdtempSync(join(tmpdir(), "mlxlm-fuzz-hub-"));
process.on("exit", () => rmSync(outer, { recursive: true, force: true }));
const home = join(outer, "home");
Object.assign(process.env, {
  HF_ENDPOINT: `http://127.0.0.1:${server.port}`,
  HF_HOME: home,
  HF_HUB_CACHE: join(home, "hub"),
  HF_TOKEN: "hf_secret",
  HF_HUB_OFFLINE: "",
  HF_HUB_DOWNLOAD_TIMEOUT: "0.5",
});

async function use(): Promise<void> {
  const kind = roll(8);
  if (kind === 0) return void (await uploadTarget(pick(roll, ["name", "org/name"])));
  if (kind < 3) return void (await openDataset("org/name"));
  const { path } = await resolveModel("org/name");
  // What was fetched is found again, whatever the cache remembers of the hub's words.
  process.env.HF_HUB_OFFLINE = "1";
  if ((await resolveModel("org/name")).path !== path) throw new Error("another snapshot is found offline");
}

async function run(seed: number): Promise<"sound" | "refused"> {
  roll = dice(seed);
  requests = 0;
  rmSync(home, { recursive: true, force: true });
  const error = await use().catch((reason: unknown) => reason);
  process.env.HF_HUB_OFFLINE = "";
  const strays = readdirSync(outer).filter((name) => name !== "home");
  if (strays.length > 0) throw new Error(`files outside the cache: ${strays}`);
  if (error === undefined) return "sound";
  if (!(error instanceof UserError)) throw error;
  if (!error.message || error.message.length > 10_000) throw new Error("an error without a message, or without end");
  return "refused";
}

/** An input waits more than it works: requests that fail are tried again. */
const atOnce = 10;

if (process.argv.includes("--child")) await fuzzMain(import.meta.path, run);
else {
  const [count = 3000, seed = 1] = process.argv.slice(2).map(Number);
  const each = Math.ceil(count / atOnce);
  const parts = Array.from({ length: atOnce }, (_, i) => supervise(import.meta.path, each, seed + i * each));
  const outcomes = await Promise.all(parts);
  const sum = (name: "sound" | "refused") => outcomes.reduce((total, outcome) => total + outcome[name], 0);
  const memory = Math.max(...outcomes.map((outcome) => outcome.memory));
  console.log(
    `${atOnce * each} inputs: ${sum("refused")} refused, ${sum("sound")} taken, ${Math.round(memory / 1e6)} MB at most`,
  );
}

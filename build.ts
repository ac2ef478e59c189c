#!/usr/bin/env bun
/**
 * Builds mlxlm: MLX's SDK → native library → one executable.
 *
 *   bun build.ts [--backend cpu|cuda|metal] [--target linux-x64|linux-arm64|darwin-arm64] [--mlx-prefix DIR]
 *                [--out DIR] [--bun FILE] [--kernels DIR]
 *
 * --out is where native/ and mlxlm are written. --bun is the Bun executable that mlxlm becomes part of; without it, Bun
 * fetches its own for another machine. --kernels are compiled CUDA kernels to ship, from a run's cache.
 * A second run redoes only what changed.
 */
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { parseArgs } from "node:util";
import { componentsOf } from "./release/components";
import { licencesText } from "./release/licenses";
import type { EmbeddedBundle } from "./src/embedded-files";
import { buildNative } from "./vendor/mlx/native";
import { ownMlx } from "./vendor/mlx/own-mlx";
import type { Backend, Target } from "./vendor/mlx/sdk";
import { fail, run, toolchain } from "./vendor/mlx/toolchain";

const root = import.meta.dir;
const cache = join(root, ".cache");
const backends: readonly Backend[] = ["cpu", "cuda", "metal"];
const targets: readonly Target[] = ["linux-x64", "linux-arm64", "darwin-arm64"];

function choice<T extends string>(flag: string, value: string, known: readonly T[]): T {
  if (!known.includes(value as T)) fail(`--${flag} must be one of ${known.join(", ")}, not "${value}"`);
  return value as T;
}

function options() {
  const flags = {
    backend: { type: "string" },
    target: { type: "string" },
    "mlx-prefix": { type: "string" },
    out: { type: "string" },
    bun: { type: "string" },
    kernels: { type: "string" },
  } as const;
  try {
    return parseArgs({ args: process.argv.slice(2), options: flags }).values;
  } catch (error) {
    return fail((error as Error).message);
  }
}

const values = options();
const host = `${process.platform}-${process.arch}`;
const target = choice("target", values.target ?? host, targets);
const backend = choice("backend", values.backend ?? (target === "darwin-arm64" ? "metal" : "cpu"), backends);
const mlxPrefix = values["mlx-prefix"] === undefined ? undefined : ownMlx(values["mlx-prefix"]);
const out = values.out === undefined ? join(root, "dist", target === host ? "" : target) : resolve(values.out);
const native = join(out, "native");

if (!existsSync(join(root, "node_modules/tokenizers"))) {
  run([process.execPath, "install", "--frozen-lockfile"], { cwd: root });
}

buildNative({ backend, target, mlxPrefix, cache, output: native }, toolchain(cache));

rmSync(join(native, "kernels"), { recursive: true, force: true });
if (values.kernels !== undefined) cpSync(values.kernels, join(native, "kernels"), { recursive: true });

const addons: Record<Target, string> = {
  "linux-x64": "linux-x64-gnu",
  "linux-arm64": "linux-arm64-gnu",
  "darwin-arm64": "darwin-arm64",
};
const addon = `tokenizers.${addons[target]}.node`;

/** zstd's highest below its "ultra" levels; unpacking takes as long at every level. */
const level = 19;
const licences = "THIRD-PARTY-LICENSES.txt";
const components = componentsOf(target, mlxPrefix === undefined ? backend : null, join(cache, "sdk"));
writeFileSync(join(out, licences), licencesText(components));

const bundles: Record<string, EmbeddedBundle> = {
  native: pack(native),
  licenses: pack(out, licences),
  tokenizers: pack(join(root, "node_modules/tokenizers"), addon),
  demo: pack(join(root, "src/demo/model")),
};
const outfile = join(out, "mlxlm");
await compileExecutable(outfile, bundles);
console.error(`built ${relative(process.cwd(), outfile)}`);

/** Compresses a folder's files (those that match) into the cache, each once, and lists them for embedding. */
function pack(folder: string, pattern = "**/*"): EmbeddedBundle {
  const packed = join(cache, "packed");
  mkdirSync(packed, { recursive: true });
  const names = [...new Bun.Glob(pattern).scanSync({ cwd: folder })].sort();
  const files = names.map((name) => {
    const bytes = readFileSync(join(folder, name));
    const sha256 = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
    const path = join(packed, `${sha256}-${level}.zst`);
    if (!existsSync(path)) {
      writeFileSync(`${path}.${process.pid}`, Bun.zstdCompressSync(bytes, { level }));
      renameSync(`${path}.${process.pid}`, path);
    }
    return { name, path, size: bytes.length, sha256 };
  });
  const id = new Bun.CryptoHasher("sha256").update(JSON.stringify(files.map(({ name, sha256 }) => [name, sha256])));
  return { id: id.digest("hex").slice(0, 16), files };
}

/** The source that takes the place of src/embedded-files.ts. */
function embeddedSource(bundles: Record<string, EmbeddedBundle>): string {
  const imports: string[] = [];
  const entries = Object.entries(bundles).map(([name, bundle]) => {
    const files = bundle.files.map(({ path, ...file }) => {
      imports.push(`import file${imports.length} from ${JSON.stringify(path)} with { type: "file" };`);
      return `{ ...${JSON.stringify(file)}, path: file${imports.length - 1} }`;
    });
    return `${JSON.stringify(name)}: { id: ${JSON.stringify(bundle.id)}, files: [${files.join(", ")}] }`;
  });
  return `${imports.join("\n")}\nexport const bundles = { ${entries.join(", ")} };\n`;
}

/**
 * The source that takes the addon's place. Bun would write an embedded addon into the temp folder, and load what it
 * finds there under that name.
 */
function addonSource(): string {
  return `
    import { createRequire } from "node:module";
    import { join } from "node:path";
    import { embeddedFolder } from ${JSON.stringify(join(root, "src/embedded"))};
    module.exports = createRequire(import.meta.url)(join(embeddedFolder("tokenizers"), ${JSON.stringify(addon)}));
  `;
}

async function compileExecutable(outfile: string, bundles: Record<string, EmbeddedBundle>): Promise<void> {
  const built = await Bun.build({
    entrypoints: [join(root, "cmd/main.ts")],
    compile: {
      target: `bun-${target}`,
      outfile,
      ...(values.bun !== undefined && { executablePath: values.bun }),
      // The folder where a command is started may be anyone's: none of its files may set variables or run code.
      autoloadDotenv: false,
      autoloadBunfig: false,
      autoloadTsconfig: false,
      autoloadPackageJson: false,
    },
    minify: { whitespace: true, syntax: true },
    bytecode: true,
    format: "esm",
    plugins: [
      {
        name: "embedded files",
        setup(build) {
          build.onLoad({ filter: /src[\\/]embedded-files\.ts$/ }, () => ({
            contents: embeddedSource(bundles),
            loader: "js",
          }));
          build.onLoad({ filter: /[\\/]tokenizers\.[^\\/]*\.node$/ }, () => ({
            contents: addonSource(),
            loader: "js",
          }));
        },
      },
    ],
  });
  if (!built.success) fail(built.logs.join("\n"));
}

/**
 * xgrammar (Apache 2.0), which compiles grammars and says which tokens may follow: its source distribution, pinned by
 * version and SHA-256, fetched with pip and compiled once into a static library in the build's own cache.
 */
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { fail, python, run, type Toolchain } from "../mlx/toolchain";

const name = "xgrammar";
export const version = "0.2.9";
const sha256 = "87b466bca2475e29bb0323abc62c6c33cbcbcff47e5fb800a3e2099ac9620b90";

export interface Xgrammar {
  /** The static library. */
  library: string;
  /** Folders with its headers. */
  includes: string[];
  /** The licence texts of what is compiled in, by the names that they get beside the native library. */
  licences: Record<string, string>;
}

/** Fetches and unpacks the source into `cache`, unless it lies there already. Returns the folder. */
export function source(cache: string): string {
  const folder = join(cache, `${name}-${version}-${sha256.slice(0, 12)}`);
  if (existsSync(folder)) return folder;
  const temporary = `${folder}.${process.pid}`;
  rmSync(temporary, { recursive: true, force: true });
  mkdirSync(temporary, { recursive: true });
  const requirement = `${name}==${version}`;
  const requirements = join(temporary, "requirements.txt");
  writeFileSync(requirements, `${requirement} --hash=sha256:${sha256}\n`);
  console.error(`fetching ${name} ${version}`);
  const ahead = [join(import.meta.dir, "pip"), process.env.PYTHONPATH].filter((path) => path !== undefined);
  const pip = run(
    [
      ...[python(), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"],
      ...["--no-binary", ":all:", "--no-build-isolation", "--require-hashes", "--dest", temporary, "-r", requirements],
    ],
    { env: { PYTHONPATH: ahead.join(delimiter), MLXLM_SOURCE: requirement }, allowFailure: true },
  );
  if (pip.code !== 0) {
    rmSync(temporary, { recursive: true, force: true });
    const reason = /hash/i.test(pip.output)
      ? "its hash is not the pinned one: someone changed the file, or the pin is old"
      : `pip could not fetch it (${pip.output.trim().split("\n").at(-1) ?? "no output"}); check the network`;
    fail(`${name} ${version}: ${reason}`);
  }
  run([python(), "-m", "tarfile", "-e", join(temporary, `${name}-${version}.tar.gz`), temporary]);
  renameSync(join(temporary, `${name}-${version}`), folder);
  rmSync(temporary, { recursive: true });
  return folder;
}

/** What decides the library's bytes, beside the compiler: a change compiles it anew. */
function keyOf(compiler: readonly string[]): string {
  const hash = new Bun.CryptoHasher("sha256").update(sha256).update(compiler.join("\n"));
  for (const file of ["CMakeLists.txt", "src/logging.h", "src/steps.h"])
    hash.update(readFileSync(join(import.meta.dir, file)));
  return hash.digest("hex").slice(0, 12);
}

/**
 * The compiled library.
 * @param target names the folder of what is compiled for it
 * @param settings of CMake, for another machine than this one
 */
export function xgrammar(
  cache: string,
  target: string,
  { cmake, ninja }: Toolchain,
  settings: readonly string[] = [],
): Xgrammar {
  const folder = source(join(cache, "sdk"));
  const includes = ["include", "3rdparty/picojson", "3rdparty/dlpack/include"].map((path) => join(folder, path));
  const licences = {
    "xgrammar.txt": join(folder, "LICENSE"),
    "xgrammar-notice.txt": join(folder, "NOTICE"),
    "dlpack.txt": join(folder, "3rdparty/dlpack/LICENSE"),
    "picojson.txt": join(folder, "3rdparty/picojson/picojson.h"),
  };
  const build = join(cache, "build", `${name}-${target}-${keyOf(settings)}`);
  const library = join(build, "finished/libxgrammar.a");
  if (!existsSync(library)) {
    console.error(`compiling ${name} ${version}: about a minute, this once`);
    run([
      ...[cmake, "-S", import.meta.dir, "-B", build, "-G", "Ninja", `-DCMAKE_MAKE_PROGRAM=${ninja}`],
      ...["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS_RELEASE=-O2 -DNDEBUG", `-DXGRAMMAR_SOURCE=${folder}`],
      ...settings,
    ]);
    run([cmake, "--build", build]);
    mkdirSync(join(build, "finished"), { recursive: true });
    renameSync(join(build, "libxgrammar.a"), library);
  }
  return { library, includes, licences };
}

/** Lays the licence texts beside the native library. The comment that opens a header is its licence. */
export function copyLicences({ licences }: Xgrammar, folder: string): void {
  mkdirSync(folder, { recursive: true });
  for (const [to, from] of Object.entries(licences)) {
    if (!from.endsWith(".h")) copyFileSync(from, join(folder, to));
    else writeFileSync(join(folder, to), /^\/\*[\s\S]*?\*\//.exec(readFileSync(from, "utf8"))?.[0] ?? "");
  }
}

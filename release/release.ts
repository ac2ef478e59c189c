#!/usr/bin/env bun
/**
 * Makes a release in dist/release: an archive for each platform with its bill of materials, then what is made from all
 * of them: manifest, sums, notes, the npm packages, the tap's formula, the installer.
 *
 *   bun run release [--platform NAME]… [--only archives|rest]
 *
 * A release in parts: `--only archives` on each machine that builds, then `--only rest` where the files were brought
 * together.
 */
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import { sdkVersions } from "../vendor/mlx/sdk";
import { fail, run } from "../vendor/mlx/toolchain";
import { makeExecutable, pack } from "./archive";
import { bunRuntime, bunVersion } from "./bun-runtime";
import { answers, checkFiles } from "./checks";
import { componentsOf } from "./components";
import { unpackedKernels } from "./cuda-kernels";
import { documents } from "./documents";
import { formula } from "./homebrew";
import { Artefact, fileFacts, Manifest, sha256Of, sumLine } from "./manifest";
import { notesOf } from "./notes";
import { platformPackage, wrapperPackage } from "./npm";
import { type Platform, platformNamed, platforms } from "./platforms";
import { sbomOf } from "./sbom";

const root = join(import.meta.dir, "..");
const destination = join(root, "dist/release");
/** Unpacked executables and what else the archives are made of. */
const work = join(root, ".cache/release");
const sdks = join(root, ".cache/sdk");
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

const git = (...words: string[]) => run(["git", "-C", root, ...words]).output.trim();
const commit = git("rev-parse", "HEAD");
/** Dates in a release are its commit's: a second build gives the same files. */
const time = new Date(git("log", "-1", "--format=%cI"));

const partName = (platform: string) => `mlxlm-${version}-${platform}.json`;

async function makeArchive(platform: Platform): Promise<void> {
  console.error(`${platform.name}: ${platform.words}`);
  const built = join(work, platform.name);
  const target = ["--target", platform.target, "--backend", platform.backend, "--out", built];
  const bun = ["--bun", bunRuntime(platform.bun, join(root, ".cache"))];
  const kernels = platform.backend === "cuda" ? ["--kernels", unpackedKernels(work)] : [];
  run([process.execPath, join(root, "build.ts"), ...target, ...bun, ...kernels]);
  const executable = join(built, "mlxlm");
  makeExecutable(executable);
  checkFiles(platform, executable, join(built, "native"));
  const answered = answers(platform, executable);

  const components = componentsOf(platform.target, platform.backend, sdks);
  copyFileSync(join(root, "LICENSE"), join(built, "LICENSE"));
  const folders = documents(join(root, "cmd/main.ts"), built);

  const stem = `mlxlm-${version}-${platform.name}`;
  const archive = join(destination, `${stem}.tar.gz`);
  const names = ["mlxlm", "LICENSE", "THIRD-PARTY-LICENSES.txt", ...folders];
  await pack(archive, { folder: built, names, prefix: stem, time });
  const facts = await fileFacts(executable);
  const sbom = join(destination, `${stem}.cdx.json`);
  writeFileSync(sbom, await sbomOf({ version, sha256: facts.sha256, platform: platform.name, time }, components));
  const part: Artefact = {
    platform: platform.name,
    words: platform.words,
    archive: await fileFacts(archive),
    executable: facts,
    sbom: await fileFacts(sbom),
    builtOn: `${process.platform}-${process.arch}`,
    answered,
  };
  writeFileSync(join(work, partName(platform.name)), `${JSON.stringify(part, null, 2)}\n`);
  copyFileSync(join(work, partName(platform.name)), join(destination, partName(platform.name)));
  const megabytes = (size: number) => `${(size / 1e6).toFixed(1)} MB`;
  console.error(`  ${megabytes(facts.size)}, packed ${megabytes(part.archive.size)}; answered: ${answered}`);
}

/** The parts whose archives lie in the folder, each checked against its archive. */
async function parts(): Promise<Artefact[]> {
  const found = platforms.filter(({ name }) => existsSync(join(destination, partName(name))));
  if (found.length === 0) fail(`there is no archive in ${relative(process.cwd(), destination)}`);
  return Promise.all(
    found.map(async ({ name }) => {
      const part = Artefact.parse(JSON.parse(readFileSync(join(destination, partName(name)), "utf8")));
      const actual = await sha256Of(join(destination, part.archive.file));
      if (actual !== part.archive.sha256)
        fail(`${part.archive.file} is not the archive that ${partName(name)} describes`);
      return part;
    }),
  );
}

async function makeRest(): Promise<void> {
  const artefacts = await parts();
  const manifest: Manifest = {
    ...{ name: "mlxlm", version, commit, time: time.toISOString() },
    ...{ bun: bunVersion, mlx: sdkVersions.mlx, artefacts },
  };
  const write = (name: string, text: string) => writeFileSync(join(destination, name), text);
  write("manifest.json", `${JSON.stringify(Manifest.parse(manifest), null, 2)}\n`);
  write("NOTES.md", notesOf(readFileSync(join(root, "CHANGELOG.md"), "utf8"), version));
  copyFileSync(join(import.meta.dir, "install.sh"), join(destination, "install.sh"));
  makeExecutable(join(destination, "install.sh"));
  const isWhole = platforms
    .filter(({ isDefault }) => isDefault)
    .every(({ name }) => artefacts.some((one) => one.platform === name));
  if (isWhole) write("mlxlm.rb", formula(manifest));

  const packages = join(destination, "npm");
  rmSync(packages, { recursive: true, force: true });
  const npmWork = join(work, "npm");
  rmSync(npmWork, { recursive: true, force: true });
  for (const { platform, archive } of artefacts) {
    const unpacked = join(npmWork, `${platform}-unpacked`);
    mkdirSync(unpacked, { recursive: true });
    run(["tar", "xzf", join(destination, archive.file), "--strip-components=1", "-C", unpacked]);
    platformPackage(platformNamed(platform), unpacked, npmWork, packages);
    rmSync(unpacked, { recursive: true });
  }
  wrapperPackage(npmWork, packages);
  rmSync(npmWork, { recursive: true });

  const summed = readdirSync(destination, { withFileTypes: true }).filter(
    (one) => one.isFile() && one.name !== "SHA256SUMS",
  );
  const facts = await Promise.all(summed.map(({ name }) => fileFacts(join(destination, name))));
  write(
    "SHA256SUMS",
    facts
      .sort((a, b) => a.file.localeCompare(b.file, "en"))
      .map(sumLine)
      .join(""),
  );
}

const { values } = parseArgs({
  options: { platform: { type: "string", multiple: true }, only: { type: "string" } },
});
if (values.only !== undefined && !["archives", "rest"].includes(values.only)) fail("--only is archives or rest");
const chosen = values.platform?.map(platformNamed) ?? platforms;
mkdirSync(destination, { recursive: true });
mkdirSync(work, { recursive: true });
if (values.only !== "rest") for (const platform of chosen) await makeArchive(platform);
if (values.only !== "archives") await makeRest();

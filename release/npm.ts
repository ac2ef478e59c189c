/**
 * The npm packages of a release: `mlxlm`, a launcher of a few KB, and one package a platform with its executable, which
 * npm, pnpm, yarn and Bun choose by os, cpu and libc. Nothing runs when they are installed.
 */
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { commands } from "../cmd/commands";
import { run } from "../vendor/mlx/toolchain";
import { makeExecutable } from "./archive";
import { type Platform, platforms } from "./platforms";

const root = join(import.meta.dir, "..");
const templates = join(import.meta.dir, "npm");
const about = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));

const shared = {
  version: about.version,
  license: about.license,
  homepage: about.homepage,
  repository: about.repository,
  bugs: about.bugs,
};

function writePackage(folder: string, manifest: Record<string, unknown>, readme: string): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), `${JSON.stringify(manifest, null, 2)}\n`);
  writeFileSync(join(folder, "README.md"), readme);
  copyFileSync(join(root, "LICENSE"), join(folder, "LICENSE"));
}

/** Packs a folder and returns the path of the .tgz. */
function packed(folder: string, destination: string): string {
  mkdirSync(destination, { recursive: true });
  const { output } = run(["npm", "pack", "--silent", "--pack-destination", destination], { cwd: folder });
  return join(destination, output.trim().split("\n").at(-1)!);
}

const installed = "npm install --global mlxlm   # or run it once: npx mlxlm, bunx mlxlm";

/** The package of one platform. @param unpacked the folder with mlxlm and the licences of what it contains */
export function platformPackage(platform: Platform, unpacked: string, work: string, destination: string): string {
  const folder = join(work, platform.name);
  const files = ["mlxlm", "THIRD-PARTY-LICENSES.txt"];
  const { os, cpu, libc } = platform.npm;
  const manifest = {
    name: `@mlxlm/${platform.name}`,
    ...shared,
    description: `The mlxlm executable: ${platform.words}`,
    os: [os],
    cpu: [cpu],
    libc: libc && [libc],
    preferUnplugged: true,
    files,
    publishConfig: { access: "public" },
  };
  writePackage(
    folder,
    manifest,
    `# mlxlm: ${platform.words}\n\nThe executable that the package mlxlm starts.\n\n    ${installed}\n`,
  );
  for (const name of files) copyFileSync(join(unpacked, name), join(folder, name));
  makeExecutable(join(folder, "mlxlm"));
  return packed(folder, destination);
}

/** The package that people install. */
export function wrapperPackage(work: string, destination: string): string {
  const folder = join(work, "mlxlm");
  const names = Object.keys(commands);
  const bin = {
    mlxlm: "bin/mlxlm",
    ...Object.fromEntries(names.map((name) => [`mlxlm.${name}`, `bin/mlxlm.${name}`])),
  };
  const defaults = platforms.filter(({ isDefault }) => isDefault);
  const manifest = {
    name: "mlxlm",
    ...shared,
    description: about.description,
    keywords: ["mlx", "mlx-lm", "llm", "lora", "quantization", "apple-silicon", "cuda"],
    bin,
    files: ["bin"],
    optionalDependencies: Object.fromEntries(defaults.map(({ name }) => [`@mlxlm/${name}`, about.version])),
    publishConfig: { access: "public" },
  };
  const words = platforms.map(({ name, words }) => `- \`@mlxlm/${name}\`: ${words}`).join("\n");
  const readme = `# mlxlm

${about.description}.

    ${installed}
    mlxlm generate --model demo --prompt "What is 27 + 58?"

The executable comes in a package of its own for each platform:

${words}

For an NVIDIA GPU, add the CUDA package: \`npm install --global mlxlm @mlxlm/linux-x64-cuda\`. mlxlm then starts that one.
`;
  writePackage(folder, manifest, readme);
  mkdirSync(join(folder, "bin"), { recursive: true });
  const alias = readFileSync(join(templates, "alias"), "utf8");
  const scripts = {
    mlxlm: readFileSync(join(templates, "mlxlm"), "utf8"),
    ...Object.fromEntries(names.map((name) => [`mlxlm.${name}`, alias.replaceAll("COMMAND", name)])),
  };
  for (const [name, text] of Object.entries(scripts)) {
    writeFileSync(join(folder, "bin", name), text);
    makeExecutable(join(folder, "bin", name));
  }
  return packed(folder, destination);
}

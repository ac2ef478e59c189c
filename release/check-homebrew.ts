#!/usr/bin/env bun
/**
 * Has the Homebrew on PATH check the formula, install it from dist/release into its prefix, test it, and take it away:
 * `bun run release:check-homebrew`. Needs an archive of this platform; stands in for those that were not built.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "../vendor/mlx/toolchain";
import { formula } from "./homebrew";
import { Manifest } from "./manifest";
import { platforms } from "./platforms";

const release = join(import.meta.dir, "../dist/release");
const tap = "mlxlm/check";
const manifest = Manifest.parse(JSON.parse(readFileSync(join(release, "manifest.json"), "utf8")));
const [any] = manifest.artefacts;
for (const { name, isDefault } of platforms) {
  const isThere = manifest.artefacts.some(({ platform }) => platform === name);
  if (isDefault && !isThere) manifest.artefacts.push({ ...any!, platform: name });
}

const env = {
  HOMEBREW_NO_AUTO_UPDATE: "1",
  HOMEBREW_NO_ANALYTICS: "1",
  HOMEBREW_NO_INSTALL_FROM_API: "1",
  HOMEBREW_NO_ENV_HINTS: "1",
};
let failures = 0;
function brew(...words: string[]): void {
  const { code, output } = run(["brew", ...words], { env, allowFailure: true });
  console.log(`${code === 0 ? "ok    " : "FAILED"} brew ${words.join(" ")}`);
  if (code === 0) return;
  failures++;
  console.log(output);
}

brew("tap-new", "--no-git", tap);
const folder = join(run(["brew", "--repository", tap], { env }).output.trim(), "Formula");
mkdirSync(folder, { recursive: true });
writeFileSync(join(folder, "mlxlm.rb"), formula(manifest, `file://${release}`));
brew("style", tap);
brew("audit", "--formula", `${tap}/mlxlm`);
brew("install", `${tap}/mlxlm`);
brew("test", `${tap}/mlxlm`);
brew("uninstall", `${tap}/mlxlm`);
brew("untap", tap);
console.log(failures === 0 ? "all hold" : `${failures} failed`);
process.exit(failures === 0 ? 0 : 1);

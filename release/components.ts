/** Everything of others that an executable contains, with versions, sources and licences. */
import { existsSync, globSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { PackageURL } from "packageurl-js";
import { type Backend, mlxSdk, openblas, sdkVersions, type Target } from "../vendor/mlx/sdk";
import { source as xgrammarSource, version as xgrammarVersion } from "../vendor/xgrammar/source";
import { bunVersion } from "./bun-runtime";

export interface Component {
  name: string;
  version: string;
  /** An SPDX expression. */
  license: string;
  /** What holds for it, in full. */
  text: string;
  purl: string;
  url: string;
}

const root = join(import.meta.dir, "..");

/**
 * What an executable for a target contains of others', sorted by name.
 * @param backend null where its MLX is the builder's own
 * @param sdks where MLX's SDK was unpacked
 */
export function componentsOf(target: Target, backend: Backend | null, sdks: string): Component[] {
  const sdk = backend
    ? [mlx(target, backend, sdks), ...openblasOf(target, backend, sdks), ...cudaHeaders(backend)]
    : [];
  const all = [bun, ...sdk, xgrammar(sdks), ...npmPackages()];
  return all.sort((a, b) => a.name.localeCompare(b.name, "en"));
}

const bun: Component = {
  name: "bun",
  version: bunVersion,
  license: "MIT AND LGPL-2.1-or-later",
  text: `Bun is MIT-licensed. It links JavaScriptCore and WebKit's WTF statically, which are under the LGPL 2.1 or later and
BSD licences, and other libraries under MIT, BSD, Apache 2.0, zlib and similar licences. Their list, their texts, and how to
link Bun again with a changed JavaScriptCore:
https://github.com/oven-sh/bun/blob/bun-v${bunVersion}/LICENSE.md
The source of JavaScriptCore as Bun uses it: https://github.com/oven-sh/WebKit`,
  purl: `pkg:npm/bun@${bunVersion}`,
  url: "https://github.com/oven-sh/bun",
};

/** The licences that a wheel carries, all in one text. */
function wheelLicence(prefix: string): string {
  const files = globSync(join(prefix, "*.dist-info/licenses/**/*"), { withFileTypes: true }).filter((file) =>
    file.isFile(),
  );
  if (files.length === 0) throw new Error(`${prefix} has no licence`);
  return files.map((file) => readFileSync(join(file.parentPath, file.name), "utf8").trim()).join("\n\n");
}

function mlx(target: Target, backend: Backend, sdks: string): Component {
  const { prefix } = mlxSdk(backend, target, sdks);
  const name = backend === "cuda" ? "mlx-cuda-13" : `mlx-${backend}`;
  return {
    name,
    version: sdkVersions.mlx,
    license: "MIT",
    text: wheelLicence(join(prefix, "..")),
    purl: `pkg:pypi/${name}@${sdkVersions.mlx}`,
    url: "https://github.com/ml-explore/mlx",
  };
}

function openblasOf(target: Target, backend: Backend, sdks: string): Component[] {
  const library = backend === "cpu" ? openblas(target, sdks) : null;
  if (!library) return [];
  return [
    {
      name: "scipy-openblas32",
      version: sdkVersions.openblas,
      license: "BSD-3-Clause AND BSD-2-Clause AND GPL-3.0-only WITH GCC-exception-3.1",
      text: wheelLicence(join(library, "../../..")),
      purl: `pkg:pypi/scipy-openblas32@${sdkVersions.openblas}`,
      url: "https://github.com/MacPython/openblas-libs",
    },
  ];
}

function xgrammar(sdks: string): Component {
  const folder = xgrammarSource(dirname(sdks));
  const parts = ["LICENSE", "NOTICE", "3rdparty/dlpack/LICENSE", "3rdparty/picojson/picojson.h"].map((name) =>
    readFileSync(join(folder, name), "utf8"),
  );
  // The comment that opens a header is its licence.
  const [licence, notice, dlpack, picojson] = [...parts.slice(0, 3), /^\/\*[\s\S]*?\*\//.exec(parts[3]!)![0]];
  return {
    name: "xgrammar",
    version: xgrammarVersion,
    license: "Apache-2.0 AND BSD-2-Clause",
    text: [licence, notice, `DLPack:\n\n${dlpack}`, `picojson:\n\n${picojson}`]
      .map((text) => text!.trim())
      .join("\n\n"),
    purl: `pkg:pypi/xgrammar@${xgrammarVersion}`,
    url: "https://github.com/mlc-ai/xgrammar",
  };
}

/** Headers that MLX's wheel for CUDA brings for the kernels that it compiles at run time. */
function cudaHeaders(backend: Backend): Component[] {
  if (backend !== "cuda") return [];
  const headers = (name: string, repository: string, license: string, notice: string): Component => ({
    name,
    version: `as in mlx-cuda-13 ${sdkVersions.mlx}`,
    license,
    text: notice,
    purl: `pkg:github/NVIDIA/${repository}`,
    url: `https://github.com/NVIDIA/${repository}`,
  });
  return [
    headers(
      "CCCL",
      "cccl",
      "Apache-2.0 WITH LLVM-exception",
      "Copyright (c) NVIDIA Corporation. Under the Apache License v2.0 with LLVM Exceptions: https://llvm.org/LICENSE.txt",
    ),
    headers(
      "CUTLASS",
      "cutlass",
      "BSD-3-Clause",
      "Copyright (c) NVIDIA CORPORATION & AFFILIATES. SPDX-License-Identifier: BSD-3-Clause. Every header carries the text.",
    ),
  ];
}

/** The npm packages that the program imports, and those that they import. */
function npmPackages(): Component[] {
  const found = new Map<string, Component>();
  const take = (name: string, from: string): void => {
    const folder = installedFolder(name, from);
    if (found.has(folder)) return;
    const about = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const [namespace, bare] = name.startsWith("@") ? name.split("/") : [undefined, name];
    found.set(folder, {
      name,
      version: about.version,
      license: about.license,
      text: packageLicence(folder, about),
      purl: new PackageURL("npm", namespace, bare!, about.version).toString(),
      url: `https://www.npmjs.com/package/${name}/v/${about.version}`,
    });
    for (const needed of Object.keys(about.dependencies ?? {})) take(needed, folder);
  };
  const { dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  for (const name of Object.keys(dependencies)) take(name, root);
  return [...found.values()];
}

function installedFolder(name: string, from: string): string {
  const inside = join(from, "node_modules", name);
  if (existsSync(inside)) return inside;
  const above = join(root, "node_modules", name);
  if (!existsSync(above)) throw new Error(`${name} is not installed: bun install`);
  return above;
}

function packageLicence(folder: string, about: { name: string; license: string; author?: unknown }): string {
  const file = readdirSync(folder).find((name) => /^licen[cs]e(\.(md|txt))?$/i.test(name));
  if (file) return readFileSync(join(folder, file), "utf8").trim();
  return `The package carries no text of its licence; its package.json says: ${about.license}.`;
}

#!/usr/bin/env bun
/**
 * Publishes the packages of dist/release/npm to a registry on this machine, and installs them from it as people do: npm,
 * npx, bunx, pnpm, yarn. Each in a clean folder with a home of its own; each must give the demo model's answer.
 *
 *   bun run release:check-npm
 */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { median } from "../bench/median";
import { platforms } from "./platforms";
import { startRegistry, tools } from "./registry";

const root = join(import.meta.dir, "..");
const packages = join(root, "dist/release/npm");
const cache = join(root, ".cache");
const scratch = mkdtempSync(join(tmpdir(), "mlxlm-npm-"));
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const question = ["--model", "demo", "--prompt", "What is 27 + 58?"];
const own = `${process.platform}-${process.arch}`;

const registry = await startRegistry(join(cache, "verdaccio"), join(scratch, "registry"));
const managers = tools(join(cache, "package-managers"), {
  pnpm: "12.4.2",
  yarn: "1.22.22",
  "@yarnpkg/cli-dist": "4.18.1",
});
// bunx is Bun under another name.
const bunFolder = join(scratch, "bun");
mkdirSync(bunFolder);
for (const name of ["bun", "bunx"]) {
  writeFileSync(join(bunFolder, name), `#!/bin/sh\nexec "${process.execPath}" ${name === "bunx" ? "x" : ""} "$@"\n`);
  chmodSync(join(bunFolder, name), 0o755);
}

let failures = 0;
let count = 0;

interface Ran {
  out: string;
  problems: string;
  code: number;
}

/** A clean folder and home, and what runs commands there. */
function place() {
  const folder = join(scratch, `place-${count++}`);
  mkdirSync(join(folder, "home"), { recursive: true });
  writeFileSync(join(folder, "package.json"), '{"name":"clean","version":"1.0.0","private":true}');
  // As the owner of a registry of one's own would: the registry, and no waiting until a version is a day old.
  const settings = `registry=${registry.url}/\nminimum-release-age=0\n${registry.url.slice(5)}/:_authToken=any\n`;
  writeFileSync(join(folder, ".npmrc"), settings);
  writeFileSync(join(folder, "home/.npmrc"), settings);
  const env = {
    HOME: join(folder, "home"),
    PATH: [bunFolder, managers, dirname(Bun.which("node")!), "/usr/bin", "/bin"].join(delimiter),
    npm_config_registry: registry.url,
    NPM_CONFIG_REGISTRY: registry.url,
    YARN_NPM_REGISTRY_SERVER: registry.url,
    YARN_UNSAFE_HTTP_WHITELIST: "127.0.0.1",
    YARN_NPM_MINIMAL_AGE_GATE: "0",
    YARN_ENABLE_TELEMETRY: "0",
    YARN_ENABLE_IMMUTABLE_INSTALLS: "false",
    HF_HUB_OFFLINE: "1",
  };
  const run = (...command: string[]): Ran => {
    const { stdout, stderr, exitCode } = Bun.spawnSync(command, { cwd: folder, env, timeout: 300_000 });
    return { out: stdout.toString(), problems: stderr.toString(), code: exitCode };
  };
  return { folder, run };
}

function check(name: string, holds: boolean, ran: Ran): void {
  console.log(`${holds ? "ok    " : "FAILED"} ${name}`);
  if (holds) return;
  failures++;
  console.log(`exit code ${ran.code}\n${ran.out}${ran.problems}`);
}

const answers = (name: string, ran: Ran) => check(name, ran.code === 0 && ran.out.includes("27 + 58 = 85."), ran);

const publish = (what: string): Ran => place().run("npm", "publish", what, "--registry", registry.url);
for (const file of readdirSync(packages)) {
  const published = publish(join(packages, file));
  check(`npm publish ${file}`, published.code === 0, published);
}
for (const platform of platforms.filter(({ isDefault }) => isDefault)) {
  if (existsSync(join(packages, `mlxlm-${platform.name}-${version}.tgz`))) continue;
  // Yarn 1 asks for every optional package, those of other machines too: an empty one stands in.
  const folder = join(scratch, platform.name);
  mkdirSync(folder);
  const { os, cpu } = platform.npm;
  const manifest = {
    name: `@mlxlm/${platform.name}`,
    version,
    os: [os],
    cpu: [cpu],
    publishConfig: { access: "public" },
  };
  writeFileSync(join(folder, "package.json"), JSON.stringify(manifest));
  const published = publish(folder);
  check(`a stand-in for @mlxlm/${platform.name}, which was not built`, published.code === 0, published);
}

{
  const { run } = place();
  answers("npx mlxlm", run("npx", "--yes", "mlxlm", "generate", ...question));
}
{
  const { run, folder } = place();
  answers("bunx mlxlm", run("bunx", "mlxlm", "generate", ...question));
  mkdirSync(join(folder, "data"));
  writeFileSync(join(folder, "data/train.jsonl"), '{"prompt":"hello","completion":"Ahoy!"}\n'.repeat(4));
  const words = ["lora", "--train", "--model", "demo", "--data", "data", "--iters", "2", "--batch-size", "2"];
  const training = run("bunx", "mlxlm", ...words);
  check("bunx mlxlm lora --train", training.code === 0, training);
}
{
  const { run, folder } = place();
  const prefix = join(folder, "global");
  const installed = run("npm", "install", "--global", "--prefix", prefix, "mlxlm");
  check("npm install --global", installed.code === 0, installed);
  answers("  mlxlm generate", run(join(prefix, "bin/mlxlm"), "generate", ...question));
  answers("  mlxlm.generate", run(join(prefix, "bin/mlxlm.generate"), ...question));
  measure(join(prefix, "bin/mlxlm"), join(prefix, `lib/node_modules/mlxlm/node_modules/@mlxlm/${own}/mlxlm`));
}
{
  const { run } = place();
  const added = run("bun", "add", "mlxlm");
  check("bun add", added.code === 0, added);
  answers("  bun run mlxlm", run("bun", "run", "mlxlm", "generate", ...question));
}
{
  const { run } = place();
  const added = run("pnpm", "add", "mlxlm");
  check("pnpm add", added.code === 0, added);
  answers("  pnpm exec mlxlm", run("pnpm", "exec", "mlxlm", "generate", ...question));
  answers("  pnpm exec mlxlm.generate", run("pnpm", "exec", "mlxlm.generate", ...question));
  answers("pnpm dlx mlxlm", run("pnpm", "dlx", "mlxlm", "generate", ...question));
}
{
  const { run } = place();
  const yarn = ["node", join(managers, "../yarn/bin/yarn.js"), "--silent"];
  const added = run(...yarn, "add", "mlxlm");
  check("yarn 1 add", added.code === 0, added);
  answers("  yarn mlxlm", run(...yarn, "mlxlm", "generate", ...question));
}
{
  const { run } = place();
  // Yarn 4 with Plug'n'Play, its default: packages stay in archives, and bins are run by Node.
  const yarn = ["node", join(managers, "../@yarnpkg/cli-dist/bin/yarn.js")];
  const added = run(...yarn, "add", "mlxlm");
  check("yarn 4 add (Plug'n'Play)", added.code === 0, added);
  answers("  yarn mlxlm", run(...yarn, "mlxlm", "generate", ...question));
  answers("  yarn mlxlm.generate", run(...yarn, "mlxlm.generate", ...question));
}
{
  const { run } = place();
  run("npm", "install", "--omit=optional", "mlxlm");
  const missing = run("npx", "mlxlm", "--version");
  const named = missing.problems.includes(`npm install @mlxlm/${own}@${version}`);
  check("a missing platform package is named", missing.code === 1 && named, missing);
  const added = run("npm", "install", `@mlxlm/${own}@${version}`);
  const after = run("npx", "mlxlm", "--version");
  check("  and the command brings it", added.code === 0 && after.out.trim() === version, after);
}

await registry.close();
rmSync(scratch, { recursive: true, force: true });
console.log(failures === 0 ? "all hold" : `${failures} failed`);
process.exit(failures === 0 ? 0 : 1);

/** What the launcher costs beyond the executable, as medians of runs in turn. */
function measure(launcher: string, executable: string): void {
  const times = { launcher: [] as number[], executable: [] as number[] };
  for (let i = 0; i < 21; i++) {
    for (const [name, path] of [
      ["launcher", launcher],
      ["executable", executable],
    ] as const) {
      const began = performance.now();
      Bun.spawnSync([path, "--version"]);
      times[name].push(performance.now() - began);
    }
  }
  const [through, alone] = [median(times.launcher), median(times.executable)];
  const cost = through - alone;
  const words = `start: ${through.toFixed(1)} ms through the launcher, ${alone.toFixed(1)} ms without it`;
  check(`  ${words}`, cost < 30, { out: "", problems: `the launcher costs ${cost} ms`, code: 0 });
}

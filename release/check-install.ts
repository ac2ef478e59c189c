#!/usr/bin/env bun
/** Installs dist/release with install.sh into a home of its own, as people do, and takes it away again: `bun run release:check-install`. */
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const release = join(import.meta.dir, "../dist/release");
const scratch = mkdtempSync(join(tmpdir(), "mlxlm-install-"));
const home = join(scratch, "home");
mkdirSync(home);
let failures = 0;

interface Ran {
  text: string;
  code: number;
}

function run(command: readonly string[], env: Record<string, string> = { HOME: home }): Ran {
  const { stdout, stderr, exitCode } = Bun.spawnSync([...command], { env: { PATH: "/usr/bin:/bin", ...env } });
  return { text: `${stdout}${stderr}`, code: exitCode };
}

const install = (words: readonly string[], env?: Record<string, string>) =>
  run(["sh", join(import.meta.dir, "install.sh"), ...words], env);

function check(name: string, holds: boolean, { text, code }: Ran): void {
  console.log(`${holds ? "ok    " : "FAILED"} ${name}`);
  if (holds) return;
  failures++;
  console.log(`exit code ${code}\n${text}`);
}

/** Files in the home, caches aside. */
const installed = () =>
  readdirSync(home, { recursive: true, encoding: "utf8" }).filter(
    (name) => !name.startsWith(".cache") && statSync(join(home, name)).isFile(),
  );

const program = join(home, ".local/bin/mlxlm");
const from = `file://${release}`;

const first = install(["--from", from]);
check("it installs, and says where", first.code === 0 && first.text.includes(program), first);
const answer = run([program, "generate", "--model", "demo", "--prompt", "What is 27 + 58?"]);
check("the program answers", answer.code === 0 && answer.text.includes("27 + 58 = 85."), answer);
const files = installed().length;
const second = install(["--from", from]);
check("again is the same", second.code === 0 && installed().length === files, second);

const bad = join(scratch, "bad");
mkdirSync(bad);
copyFileSync(join(release, "SHA256SUMS"), join(bad, "SHA256SUMS"));
for (const name of readdirSync(release).filter((one) => one.endsWith(".tar.gz")))
  writeFileSync(join(bad, name), "other bytes");
const before = readFileSync(program);
const refused = install(["--from", `file://${bad}`]);
check(
  "an archive with another hash is refused",
  refused.code === 1 && refused.text.includes("nothing was installed"),
  refused,
);
check("  and what was there stays", before.equals(readFileSync(program)), refused);
const missing = install(["--from", `file://${scratch}/none`]);
check("a place without a release is named", missing.code === 1 && missing.text.includes("cannot download"), missing);
const wrong = install(["--nope"]);
check("an unknown option is refused", wrong.code === 1 && wrong.text.includes("--uninstall"), wrong);
const homeless = install(["--from", from], {});
check("no HOME is said", homeless.code === 1 && homeless.text.includes("HOME"), homeless);

const gone = install(["--uninstall"]);
check("uninstalling leaves nothing", gone.code === 0 && installed().length === 0 && !existsSync(program), gone);
const twice = install(["--uninstall"]);
check("twice is said", twice.code === 1 && twice.text.includes("nothing is installed"), twice);

rmSync(scratch, { recursive: true, force: true });
console.log(failures === 0 ? "all hold" : `${failures} failed`);
process.exit(failures === 0 ? 0 : 1);

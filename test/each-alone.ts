/**
 * Runs every test file in a process of its own: what only passes in company leans on what another file left behind.
 * `bun test/each-alone.ts [PATTERN…]`; four minutes for all, so it is no part of `bun test`.
 */
import { join } from "node:path";

const root = join(import.meta.dir, "..");
const patterns = process.argv.slice(2);
const files = [...new Bun.Glob("{src,test,vendor,cmd}/**/*.test.ts").scanSync(root)]
  .filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern)))
  .sort();

const failed: string[] = [];
for (const file of files) {
  const child = Bun.spawn([process.execPath, "test", join(root, file)], { cwd: root, stdout: "pipe", stderr: "pipe" });
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  console.log(`${code === 0 ? "ok  " : "FAIL"} ${file}`);
  if (code === 0) continue;
  failed.push(file);
  const lines = `${out}${problems}`.split("\n").filter((line) => /^\(fail\)|^error:/.test(line));
  console.log(lines.map((line) => `       ${line}`).join("\n"));
}
console.log(`${files.length - failed.length} of ${files.length} files pass alone`);
process.exitCode = failed.length === 0 ? 0 : 1;

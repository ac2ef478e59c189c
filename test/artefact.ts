/**
 * Proofs on the built executable, not the source: `bun run artefact [NAME…]`. A line for each; exit code 1 where one fails.
 *
 *   --executable FILE   another than dist/mlxlm
 *   --through COMMAND   what runs it: an emulator, with its own words
 */
import { existsSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { Bench, type Proof, Skipped } from "./artefact/bench";
import { surroundingProofs } from "./artefact/surroundings";
import { terminalProofs } from "./artefact/terminals";
import { unpackingProofs } from "./artefact/unpacking";

const { values, positionals } = parseArgs({
  options: { executable: { type: "string" }, through: { type: "string", default: "" } },
  allowPositionals: true,
});
const executable = resolve(values.executable ?? join(import.meta.dir, "../dist/mlxlm"));
if (!existsSync(executable)) throw new Error(`${executable} is missing: bun run build`);
const command = [...values.through.split(" ").filter(Boolean), executable];

const proofs: readonly Proof[] = [...unpackingProofs, ...surroundingProofs, ...terminalProofs];
const unknown = positionals.filter((name) => !proofs.some((proof) => proof.name === name));
if (unknown.length > 0)
  throw new Error(`there is no proof ${unknown.join(", ")}: ${proofs.map(({ name }) => name).join(", ")}`);

let failed = 0;
let skipped = 0;
const chosen = proofs.filter(({ name }) => positionals.length === 0 || positionals.includes(name));
for (const { name, prove } of chosen) {
  const bench = new Bench(command);
  try {
    const measured = await prove(bench);
    console.log(`ok      ${name}${measured ? `: ${measured}` : ""}`);
  } catch (error) {
    const { message } = error as Error;
    if (error instanceof Skipped) skipped++;
    else failed++;
    console.log(`${error instanceof Skipped ? "skipped" : "FAILED "} ${name}: ${message}`);
  } finally {
    rmSync(bench.folder, { recursive: true, force: true });
  }
}
console.log(`${chosen.length - failed - skipped} hold, ${failed} failed, ${skipped} skipped`);
process.exit(failed === 0 ? 0 : 1);

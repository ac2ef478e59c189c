/** Proofs of the first start: wherever files can be unpacked it answers, elsewhere it says what to set. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { answered, type Bench, expect, mounted, type Proof, question, refused, Skipped } from "./bench";

const sayWhereElse = /XDG_CACHE_HOME=/;

async function timed<T>(work: () => Promise<T>): Promise<[T, string]> {
  const began = performance.now();
  const result = await work();
  return [result, `${((performance.now() - began) / 1000).toFixed(2)} s`];
}

/** Every unpacked file. */
function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile());
}

async function unpacked(bench: Bench): Promise<string> {
  answered(await bench.run(question), "at the first start");
  return join(bench.home, ".cache/mlxlm");
}

export const unpackingProofs: readonly Proof[] = [
  {
    name: "fresh-home",
    async prove(bench) {
      const [first, firstTime] = await timed(() => bench.run(question));
      answered(first, "in a fresh home");
      const [second, secondTime] = await timed(() => bench.run(question));
      answered(second, "at the second start");
      const cache = join(bench.home, ".cache/mlxlm");
      expect((statSync(cache).mode & 0o077) === 0, "others may look into the cache");
      expect(!bench.cached().some((name) => name.includes(".")), `leftovers: ${bench.cached()}`);
      return `first answer after ${firstTime}, then ${secondTime}`;
    },
  },
  {
    name: "no-home",
    async prove(bench) {
      const temporary = join(bench.folder, "tmp");
      mkdirSync(temporary, { mode: 0o1777 });
      if (process.getuid?.() !== 0) throw new Skipped("only root can be a user without an entry");
      // A container's user often has a number and nothing else: no name, no home, no writable folder but this.
      Bun.spawnSync(["chmod", "755", bench.folder]);
      Bun.spawnSync(["chmod", "1777", temporary]);
      const options = {
        home: null,
        env: { TMPDIR: temporary },
        through: ["setpriv", "--reuid=54321", "--clear-groups"],
      };
      answered(await bench.run(question, options), "without HOME");
      expect(existsSync(join(temporary, "mlxlm-54321")), "it was not unpacked into the temp folder");
      answered(await bench.run(question, { ...options, home: "" }), "with an empty HOME");
      return undefined;
    },
  },
  {
    name: "read-only-cache",
    async prove(bench) {
      const cache = await unpacked(bench);
      const readOnly = join(bench.folder, "read only");
      mkdirSync(readOnly);
      const through = mounted(readOnly, "ro,size=1m");
      const temporary = join(bench.folder, "tmp");
      mkdirSync(temporary);
      const env = { XDG_CACHE_HOME: readOnly };
      answered(
        await bench.run(question, { through, env: { ...env, TMPDIR: temporary } }),
        "with a cache that is read-only",
      );
      const nowhere = await bench.run(question, { through, env: { ...env, TMPDIR: readOnly } });
      refused(nowhere, 5, sayWhereElse, "where nothing can be written");
      // An image that was built with the cache in it.
      const script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"';
      const bound = ["unshare", "--mount", "sh", "-c", script, "sh", cache];
      answered(await bench.run(question, { through: bound }), "with a whole cache that can only be read");
      return undefined;
    },
  },
  {
    name: "noexec",
    async prove(bench) {
      const folder = join(bench.folder, "noexec");
      mkdirSync(folder);
      const through = mounted(folder, "noexec,size=300m");
      refused(
        await bench.run(question, { through, env: { XDG_CACHE_HOME: folder } }),
        5,
        sayWhereElse,
        "on a noexec disk",
      );
      return undefined;
    },
  },
  {
    name: "full-disk",
    async prove(bench) {
      const folder = join(bench.folder, "full");
      mkdirSync(folder);
      const through = mounted(folder, "size=2m");
      const env = { XDG_CACHE_HOME: folder, TMPDIR: folder };
      refused(await bench.run(question, { through, env }), 5, sayWhereElse, "on a full disk");
      return undefined;
    },
  },
  {
    name: "eight-first-starts",
    async prove(bench) {
      const [runs, time] = await timed(() => Promise.all(Array.from({ length: 8 }, () => bench.run(question))));
      for (const ran of runs) answered(ran, "in one of eight first starts");
      expect(!bench.cached().some((name) => name.includes(".")), `leftovers: ${bench.cached()}`);
      return `all after ${time}`;
    },
  },
  {
    name: "partial-and-foreign",
    async prove(bench) {
      const cache = await unpacked(bench);
      for (const path of filesIn(cache)) truncateSync(path, statSync(path).size >> 1);
      answered(await bench.run(question), "after an unpacking that was cut off");
      for (const path of filesIn(cache)) {
        const { size, atime, mtime } = statSync(path);
        writeFileSync(path, Buffer.alloc(size));
        utimesSync(path, atime, mtime);
      }
      answered(await bench.run(question), "after others wrote zeros of the same size");
      for (const name of bench.cached()) {
        rmSync(join(cache, name), { recursive: true });
        writeFileSync(join(cache, name), "a file where a folder belongs");
      }
      answered(await bench.run(question), "with files in the folders' places");
      return undefined;
    },
  },
  {
    name: "older-build",
    async prove(bench) {
      const cache = await unpacked(bench);
      const [one] = bench.cached();
      const older = join(cache, "0000000000000000");
      cpSync(join(cache, one!), older, { recursive: true });
      answered(await bench.run(question), "beside an older build's folder");
      const shown = await bench.run(["paths"]);
      expect(shown.code === 0 && shown.out.includes(older), "paths does not show it", shown);
      const cleaned = await bench.run(["paths", "--clean", "--json"]);
      const { removed } = JSON.parse(cleaned.out);
      expect(removed.length === 1 && removed[0].path === older && !existsSync(older), "it was not removed", cleaned);
      answered(await bench.run(question), "after cleaning");
      return undefined;
    },
  },
];

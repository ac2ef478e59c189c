/** Proofs of where and how it is started: other places, other names, hostile folders. */
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { median } from "../../bench/median";
import { answered, expect, type Proof, question } from "./bench";

export const surroundingProofs: readonly Proof[] = [
  {
    name: "version-is-quick",
    async prove(bench) {
      const times: number[] = [];
      for (let i = 0; i < 15; i++) {
        const began = performance.now();
        const ran = await bench.run(["--version"]);
        expect(ran.code === 0 && /^\d+\.\d+\.\d+\n$/.test(ran.out), "no version", ran);
        times.push(performance.now() - began);
      }
      expect(!existsSync(join(bench.home, ".cache")), "--version unpacked files");
      return `median ${median(times).toFixed(0)} ms`;
    },
  },
  {
    name: "moved",
    async prove(bench) {
      const first = join(bench.folder, "mlxlm-first");
      copyFileSync(bench.executable, first);
      answered(await bench.run(question, { executable: first }), "of a copy");
      const folder = join(bench.folder, "another place, ünïcode");
      mkdirSync(folder);
      const moved = join(folder, "mlx lm");
      renameSync(first, moved);
      answered(await bench.run(question, { executable: moved }), "after it was moved and renamed");
      const link = join(bench.folder, "mlx_lm.generate");
      symlinkSync(moved, link);
      answered(await bench.run(question.slice(1), { executable: link }), "by a link with mlx-lm's name of the command");
      return undefined;
    },
  },
  {
    name: "hostile-folder",
    async prove(bench) {
      const folder = join(bench.folder, "strange");
      const ran = join(folder, "it ran");
      mkdirSync(join(folder, "node_modules/tokenizers"), { recursive: true });
      const evil = `require("node:fs").writeFileSync(${JSON.stringify(ran)}, "");`;
      writeFileSync(join(folder, "bunfig.toml"), 'preload = ["./evil.ts"]\n[run]\npreload = ["./evil.ts"]\n');
      writeFileSync(join(folder, "evil.ts"), evil);
      writeFileSync(join(folder, "node_modules/tokenizers/index.js"), evil);
      writeFileSync(join(folder, "package.json"), '{"type":"module","imports":{"#x":"./evil.ts"}}');
      writeFileSync(join(folder, "tsconfig.json"), '{"compilerOptions":{"paths":{"*":["./evil.ts"]}}}');
      for (const name of [".env", ".env.local", ".env.production", ".env.development", ".env.test"]) {
        writeFileSync(
          join(folder, name),
          "MLXLM_NATIVE=./n\nXDG_CACHE_HOME=./c\nHF_ENDPOINT=http://127.0.0.1:1\nBUN_OPTIONS=--preload=./evil.ts\n",
        );
      }
      answered(await bench.run(question, { cwd: folder }), "in a hostile folder");
      expect(!existsSync(ran), "a file of the folder was run");
      expect(!existsSync(join(folder, "c")), "a variable of .env was taken");
      return undefined;
    },
  },
  {
    name: "empty-temp-folder",
    async prove(bench) {
      const temporary = join(bench.folder, "tmp");
      mkdirSync(temporary);
      answered(await bench.run(question, { env: { TMPDIR: temporary } }), "with an empty temp folder");
      expect(readdirSync(temporary).length === 0, `left in the temp folder: ${readdirSync(temporary)}`);
      return undefined;
    },
  },
  {
    name: "licenses",
    async prove(bench) {
      const ran = await bench.run(["licenses"]);
      const names = ["bun 1.4", "mlx-", "tokenizers ", "@huggingface/jinja"];
      expect(ran.code === 0 && names.every((name) => ran.out.includes(name)), "licences are missing", ran);
      return undefined;
    },
  },
];

/** Where a command is started, beside what, and with how much memory. */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Case, generate, lora, refused, same, sound } from "./case";

const bunfig: Case = {
  name: "cwd-bunfig",
  right: "a bunfig.toml where the command is started runs no code",
  async check({ folder, run }) {
    writeFileSync(join(folder, "bunfig.toml"), 'preload = ["./evil.ts"]\n');
    writeFileSync(join(folder, "evil.ts"), `require("node:fs").writeFileSync("ran", "");\n`);
    sound(await run(["--version"]));
    if (existsSync(join(folder, "ran"))) throw new Error("evil.ts ran");
    writeFileSync(join(folder, "bunfig.toml"), "[[[no TOML");
    sound(await run(["--version"]));
  },
};

const dotenv: Case = {
  name: "cwd-dotenv",
  right: "a .env where the command is started sets nothing",
  async check({ folder, run }) {
    for (const name of [".env", ".env.local"]) {
      writeFileSync(join(folder, name), "MLXLM_NATIVE=./n\nHF_ENDPOINT=http://127.0.0.1:9\nXDG_CACHE_HOME=./c\n");
    }
    sound(await run(generate("demo", "hi", 1)));
    if (existsSync(join(folder, "c"))) throw new Error("XDG_CACHE_HOME was taken from .env");
  },
};

const unpackRace: Case = {
  name: "unpack-race",
  right: "eight first starts at once all answer alike",
  async check({ folder, run }) {
    const env = { XDG_CACHE_HOME: join(folder, "cache") };
    const runs = await Promise.all(Array.from({ length: 8 }, () => run(generate("demo", "hi", 2), { env })));
    same(
      runs.map(({ code }) => code),
      Array(8).fill(0),
      "exit codes",
    );
    same(new Set(runs.map(({ text }) => text)).size, 1, "different answers");
  },
};

const gigabyte = 2 ** 30;

const allocation: Case = {
  name: "alloc-fail-segv",
  right: "memory that can't be had is exit 5, in words",
  async check({ run }) {
    // Of addresses, most of which Bun itself reserves.
    const words = [
      "benchmark",
      "--model",
      "demo",
      "-p",
      "200000",
      "-g",
      "1",
      "-n",
      "1",
      "--prefill-step-size",
      "200000",
    ];
    refused(await run(words, { limit: 3 * gigabyte }), 5, /memory/);
  },
};

const rank: Case = {
  name: "lora-rank-segv",
  right: "an absurd rank is refused before any work",
  async check({ folder, run }) {
    mkdirSync(join(folder, "data"));
    writeFileSync(join(folder, "data/train.jsonl"), '{"text": "a"}\n{"text": "b"}\n');
    writeFileSync(join(folder, "c.yaml"), "lora_parameters: {rank: 100000000, scale: 1, dropout: 0}\n");
    const began = performance.now();
    // With a bound, should it be taken after all.
    refused(await run(lora("data", "-c", "c.yaml"), { limit: 6 * gigabyte }), 5, /100000000/);
    if (performance.now() - began > 5000) throw new Error("it took more than 5 s");
  },
};

export const systemCases: readonly Case[] = [bunfig, dotenv, unpackRace, allocation, rank];

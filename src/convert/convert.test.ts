/** Conversions are Python's, tensor by tensor; and whatever happens, a folder is whole or not there. */
import { afterAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fixture } from "../../test/parity/fixtures";
import { ExitCode } from "../errors";
import * as mx from "../mlx";
import { type ConvertOptions, convertModel } from "./convert";
import { loadModel } from "./load";

interface Result {
  config: object;
  index: object;
  bits_per_weight: number | null;
  tensors: Record<string, [dtype: string, shape: number[], hash: string]>;
}

interface PythonOptions {
  quantize?: boolean;
  q_group_size?: number;
  q_bits?: number;
  q_mode?: mx.QuantizationMode;
  quant_predicate?: NonNullable<ConvertOptions["quantize"]>["recipe"];
  dtype?: ConvertOptions["dtype"];
}

const { dequantized, cases } = fixture<{
  dequantized: Result;
  cases: Record<string, Result & { options: PythonOptions }>;
}>("convert.json");

const checkpoint = join(import.meta.dir, "../../test/fixtures/checkpoint");
const folder = mkdtempSync(join(tmpdir(), "mlxlm-convert-"));
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string) => join(folder, name);
const readJson = (...path: string[]) => JSON.parse(readFileSync(join(...path), "utf8"));

/** Dtype, shape and hash of every tensor, straight from the file's bytes. */
function tensorsOf(path: string): Result["tensors"] {
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString());
  const dtypes: Record<string, string> = {
    F32: "float32",
    F16: "float16",
    BF16: "bfloat16",
    U32: "uint32",
    U8: "uint8",
  };
  return Object.fromEntries(
    Object.entries<{ dtype: string; shape: number[]; data_offsets: [number, number] }>(header)
      .filter(([name]) => name !== "__metadata__")
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, { dtype, shape, data_offsets }]) => {
        const data = bytes.subarray(8 + length + data_offsets[0], 8 + length + data_offsets[1]);
        return [name, [dtypes[dtype]!, shape, createHash("sha256").update(data).digest("hex").slice(0, 16)]];
      }),
  );
}

function expectResult(name: string, expected: Result): void {
  expect(tensorsOf(join(at(name), "model.safetensors"))).toEqual(expected.tensors);
  expect(readJson(at(name), "config.json")).toEqual(expected.config);
  expect(readJson(at(name), "model.safetensors.index.json")).toEqual(expected.index);
  expect(Object.keys(readJson(at(name), "config.json"))).toEqual(Object.keys(expected.config));
}

const plain = { path: at("plain") };
await convertModel({ path: checkpoint }, plain.path, { dequantize: true });

test("dequantizes as Python does, and takes the tokenizer along", () => {
  expectResult("plain", dequantized);
  for (const name of ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"]) {
    expect(readFileSync(join(plain.path, name))).toEqual(readFileSync(join(checkpoint, name)));
  }
  expect(readFileSync(join(plain.path, "README.md"), "utf8")).toBe(
    "---\nlanguage: en\nlibrary_name: mlx\npipeline_tag: text-generation\ntags:\n- mlx\n---\n",
  );
});

for (const [name, expected] of Object.entries(cases)) {
  test(`${name}: tensors, configuration and index are Python's`, async () => {
    const { quantize, q_group_size, q_bits, q_mode, quant_predicate, dtype } = expected.options;
    const live = mx.liveHandles();
    const result = await convertModel(plain, at(name), {
      quantize: quantize ? { groupSize: q_group_size, bits: q_bits, mode: q_mode, recipe: quant_predicate } : undefined,
      dtype,
    });
    expect(mx.liveHandles()).toBe(live);
    expectResult(name, expected);
    if (expected.bits_per_weight !== null) expect(result.bits_per_weight).toBeCloseTo(expected.bits_per_weight, 3);
    const { model } = await loadModel(at(name));
    model.dispose();
  });
}

test("config.json has its numbers as Python writes them", async () => {
  cpSync(plain.path, at("small epsilon"), { recursive: true });
  const config = { ...readJson(plain.path, "config.json"), rms_norm_eps: 1e-5 };
  writeFileSync(join(at("small epsilon"), "config.json"), JSON.stringify(config));
  await convertModel({ path: at("small epsilon") }, at("from small epsilon"), {});
  expect(readFileSync(join(at("from small epsilon"), "config.json"), "utf8")).toContain('"rms_norm_eps": 1e-05,');
});

test("files that are links are taken along as what they lead to", async () => {
  mkdirSync(at("links"));
  for (const name of readdirSync(plain.path)) symlinkSync(join(plain.path, name), join(at("links"), name));
  await convertModel({ path: at("links") }, at("from links"), {});
  for (const name of ["tokenizer.json", "model.safetensors"]) {
    expect(lstatSync(join(at("from links"), name)).isFile()).toBe(true);
    expect(readFileSync(join(at("from links"), name))).toEqual(readFileSync(join(plain.path, name)));
  }
});

test("files that are taken along have the mode of new files, not of those that they come from", async () => {
  cpSync(plain.path, at("private"), { recursive: true });
  for (const name of readdirSync(at("private"))) chmodSync(join(at("private"), name), 0o500);
  await convertModel({ path: at("private") }, at("from private"), {});
  const usual = 0o666 & ~process.umask();
  for (const name of readdirSync(at("from private"))) {
    expect([name, statSync(join(at("from private"), name)).mode & 0o777]).toEqual([name, usual]);
  }
});

test("the card keeps what the original's says", async () => {
  cpSync(plain.path, at("carded"), { recursive: true });
  writeFileSync(join(at("carded"), "README.md"), "---\nlicense: mit\ntags:\n- chat\n---\n# A model\n");
  await convertModel({ path: at("carded"), repo: "someone/model" }, at("from card"), {});
  expect(readFileSync(join(at("from card"), "README.md"), "utf8")).toBe(
    "---\nlicense: mit\ntags:\n- chat\n- mlx\nlibrary_name: mlx\npipeline_tag: text-generation\nbase_model: someone/model\n---\n",
  );
});

describe("leaves nothing behind", () => {
  const refused = async (source: string, options: ConvertOptions, message: RegExp, target = at("never")) => {
    const live = mx.liveHandles();
    const before = readdirSync(folder);
    expect(convertModel({ path: source }, target, options)).rejects.toThrow(message);
    await convertModel({ path: source }, target, options).catch(() => {});
    expect(mx.liveHandles()).toBe(live);
    expect(readdirSync(folder)).toEqual(before);
  };

  test("where the target exists", () => refused(plain.path, {}, /exists already/, at("plain")));

  test("where MLX has no such quantization", () =>
    refused(plain.path, { quantize: { bits: 7 } }, /cannot be quantized so: .*7/));

  test("where the target is below a file", async () => {
    writeFileSync(at("file"), "");
    await refused(plain.path, {}, /EEXIST|ENOTDIR/, join(at("file"), "below"));
    rmSync(at("file"));
  });

  test("where it is stopped on the way", async () => {
    const controller = new AbortController();
    let calls = 0;
    const onProgress = () => {
      if (++calls === 3) controller.abort();
    };
    await refused(plain.path, { onProgress, signal: controller.signal }, /nothing was saved/);
  });

  test("where a file of the tokenizer is a link to nothing", async () => {
    cpSync(plain.path, at("linked"), { recursive: true });
    symlinkSync(at("nowhere"), join(at("linked"), "added_tokens.json"));
    await refused(at("linked"), {}, /added_tokens\.json .* is a link that leads to nothing/);
    rmSync(at("linked"), { recursive: true });
  });

  // The largest file that a process may write stands for a disk that is full.
  test.skipIf(process.platform !== "linux")("where there is no room", async () => {
    const main = join(import.meta.dir, "../../cmd/main.ts");
    mkdirSync(at("full"));
    writeFileSync(join(at("full"), "previous"), "kept");
    const words = [process.execPath, main, "convert", "--hf-path", plain.path, "--mlx-path", join(at("full"), "new")];
    const child = Bun.spawn(["sh", "-c", 'ulimit -f 40; exec "$@"', "sh", ...words], { stderr: "pipe" });
    expect(await new Response(child.stderr).text()).toMatch(/new cannot be written: .*\n +Make room there/);
    expect(await child.exited).toBe(ExitCode.resources);
    expect(readdirSync(at("full"))).toEqual(["previous"]);
    rmSync(at("full"), { recursive: true });
  });

  test("where it is killed: no folder that looks whole", async () => {
    const main = join(import.meta.dir, "../../cmd/main.ts");
    mkdirSync(at("killed"));
    for (let n = 0; n < 8; n++) {
      const target = join(at("killed"), `${n}`);
      const child = Bun.spawn(
        [process.execPath, main, "convert", "--hf-path", plain.path, "--mlx-path", target, "-q"],
        {
          stderr: "pipe",
        },
      );
      await Promise.race([Bun.sleep(60 + 40 * n), child.exited]);
      child.kill(9);
      await child.exited;
      if (existsSync(target)) {
        const { model } = await loadModel(target);
        model.dispose();
      }
    }
    rmSync(at("killed"), { recursive: true });
  }, 30_000);
});

/** Names of Ollama's and LM Studio's models, and of one GGUF file of a repo. */
import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { hubEnvironment } from "../../test/hub-environment";
import { ExitCode, UserError } from "../errors";
import { chosenGguf } from "./gguf-files";
import { resolveModel } from "./resolve";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-stores-"));
afterAll(() => rmSync(folder, { recursive: true }));

async function failure(name: string): Promise<UserError> {
  const error = await resolveModel(name).catch((thrown) => thrown);
  expect(error).toBeInstanceOf(UserError);
  expect(error.hint).toBeTruthy();
  return error;
}

describe("ollama", () => {
  const digest = createHash("sha256").update("weights").digest("hex");
  const manifest = (...path: string[]) => join(folder, "manifests", ...path);

  beforeEach(() => {
    process.env.OLLAMA_MODELS = folder;
  });
  afterAll(() => {
    delete process.env.OLLAMA_MODELS;
  });

  function put(path: string[], content: unknown): void {
    mkdirSync(manifest(...path.slice(0, -1)), { recursive: true });
    writeFileSync(manifest(...path), typeof content === "string" ? content : JSON.stringify(content));
  }

  const layers = [
    { mediaType: "application/vnd.ollama.image.template", digest: `sha256:${"0".repeat(64)}` },
    { mediaType: "application/vnd.ollama.image.model", digest: `sha256:${digest}` },
  ];

  test("a model is the blob that its manifest names", async () => {
    mkdirSync(join(folder, "blobs"), { recursive: true });
    const blob = join(folder, "blobs", `sha256-${digest}`);
    writeFileSync(blob, "GGUF");
    put(["registry.ollama.ai", "library", "qwen3", "4b"], { layers });
    put(["registry.ollama.ai", "library", "qwen3", "latest"], { layers });
    put(["hf.co", "org", "name-GGUF", "Q4_K_M"], { layers });
    for (const name of ["qwen3", "qwen3:4b", "hf.co/org/name-GGUF:Q4_K_M"]) {
      expect(await resolveModel(`ollama:${name}`)).toEqual({ path: blob, source: "local" });
    }
  });

  test("what is not there, broken or leads elsewhere is an error", async () => {
    const missing = await failure("ollama:qwen3:8b");
    expect([missing.message, missing.code]).toEqual([
      `Ollama has no model qwen3:8b here (${folder})`,
      ExitCode.notFound,
    ]);
    expect(missing.hint).toContain("qwen3:4b");
    for (const name of ["../../etc/passwd", "a/../b", "", "a:..", "a b"]) {
      expect((await failure(`ollama:${name}`)).message).toMatch(/is not a model's name/);
    }
    put(["registry.ollama.ai", "library", "broken", "latest"], "{");
    expect((await failure("ollama:broken")).message).toMatch(/is broken/);
    put(["registry.ollama.ai", "library", "broken", "latest"], {
      layers: [{ mediaType: "x", digest: "sha256:../.." }],
    });
    expect((await failure("ollama:broken")).message).toMatch(/is broken/);
    put(["registry.ollama.ai", "library", "empty", "latest"], { layers: layers.slice(0, 1) });
    expect((await failure("ollama:empty")).message).toMatch(/names no weights/);
    const gone = { ...layers[1]!, digest: `sha256:${"f".repeat(64)}` };
    put(["registry.ollama.ai", "library", "gone", "latest"], { layers: [gone] });
    expect((await failure("ollama:gone")).message).toMatch(/which is not there/);
  });
});

test("LM Studio's names are a publisher's and a model's", async () => {
  const error = await failure("lmstudio:no-one/nothing");
  expect(error.message).toContain(join(homedir(), ".lmstudio/models"));
  for (const name of ["nothing", "../..", "a/b/c"]) {
    expect((await failure(`lmstudio:${name}`)).message).toMatch(/is not a model's name/);
  }
});

describe("one file of several", () => {
  const files = [
    "README.md",
    "model-Q4_K_M.gguf",
    "model-Q4_K_S.gguf",
    "model-IQ4_XS.gguf",
    "BF16/model-BF16-00001-of-00002.gguf",
    "BF16/model-BF16-00002-of-00002.gguf",
    "mmproj-F16.gguf",
  ];
  const chosen = (which?: string) => chosenGguf(files, which, "org/name");

  test("by a quantization, by its name, or the usual one", () => {
    expect(chosen()).toEqual(["model-Q4_K_M.gguf"]);
    expect(chosen("q4_k_s")).toEqual(["model-Q4_K_S.gguf"]);
    expect(chosen("model-IQ4_XS.gguf")).toEqual(["model-IQ4_XS.gguf"]);
    expect(chosen("BF16")).toEqual(files.slice(4, 6));
    expect(chosenGguf(["one-Q8_0.gguf"], undefined, "org/name")).toEqual(["one-Q8_0.gguf"]);
  });

  test("none or several is an error that names them", () => {
    const message = (call: () => unknown) => {
      try {
        call();
      } catch (error) {
        return (error as UserError).message;
      }
    };
    expect(message(() => chosen("Q4_K"))).toBe("org/name has no Q4_K");
    expect(message(() => chosen("F16"))).toBe("org/name has no F16");
    expect(message(() => chosenGguf(["README.md"], undefined, "org/name"))).toBe("org/name has no GGUF file");
    expect(message(() => chosenGguf(["a-Q8_0.gguf", "b-Q8_0.gguf"], "Q8_0", "org/name"))).toMatch(
      /2 GGUF files for Q8_0/,
    );
    expect(message(() => chosenGguf(["a-Q8_0.gguf", "b-Q6_K.gguf"], undefined, "org/name"))).toMatch(
      /none of them Q4_K_M/,
    );
  });
});

describe("of a repo on the hub", () => {
  const hub = hubEnvironment();

  test("one quantization is fetched, and found in the cache the next time", async () => {
    const name = "name-GGUF";
    hub.serve({ [`org/${name}`]: { files: { "a-Q4_K_M.gguf": "GGUF four", "a-Q8_0.gguf": "GGUF eight" } } });
    const first = await resolveModel(`hf:org/${name}:Q8_0`);
    expect(first).toMatchObject({ source: "download", repo: `org/${name}` });
    expect(await Bun.file(first.path).text()).toBe("GGUF eight");
    const again = await resolveModel(`hf:org/${name}:Q8_0`, { offline: true });
    expect(again).toEqual({ ...first, source: "cache" });
    await expect(resolveModel(`hf:org/${name}:Q4_K_M`, { offline: true })).rejects.toThrow(
      /has no Q4_K_M in the cache/,
    );
    expect((await resolveModel(`hf:org/${name}:Q4_K_M`)).source).toBe("download");
    await expect(resolveModel(`hf:org/${name}:Q5_K_M`)).rejects.toThrow(`org/${name} has no Q5_K_M`);
    await expect(resolveModel("hf:org/../x:Q4_0")).rejects.toThrow(UserError);
  });
});

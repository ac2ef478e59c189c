/** Pictures are read as Pillow reads them, and stretched to the byte as it stretches them; what is no picture is refused. */
import { afterAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fixture } from "../../test/parity/fixtures";
import { uniform } from "../../test/parity/weights";
import { ExitCode, UserError } from "../errors";
import { decodeImage, readImage } from "./decode";
import type { Pixels } from "./pixels";
import { resample } from "./resample";

const { pictures, resized } = fixture<{
  pictures: Record<string, { file: string; size: [number, number]; hash: string }>;
  resized: { from: [number, number]; to: [number, number]; hash: string }[];
}>("vision.json");

const bytesOf = (name: string) => new Uint8Array(Buffer.from(pictures[name]!.file, "base64"));

const hashed = ({ data }: Pixels) => createHash("sha256").update(data).digest("hex").slice(0, 16);

test.each(Object.entries(pictures))("%s", async (name, { size, hash }) => {
  const image = await decodeImage(bytesOf(name), name);
  expect([image.width, image.height]).toEqual(size);
  expect(image.data.length).toBe(size[0] * size[1] * 3);
  expect(hashed(image)).toBe(hash);
});

test.each(resized.map((one, i) => [i, one] as const))("picture %i in another size: %j", (i, { from, to, hash }) => {
  const [width, height] = from;
  const data = Uint8Array.from(uniform(`picture ${i}`, width * height * 3), (u) => Math.floor((u + 1) * 128));
  const image = resample({ width, height, data }, ...to);
  expect([image.width, image.height]).toEqual(to);
  expect(hashed(image)).toBe(hash);
});

/** A PNG whose header says that it is so large. */
function huge(): Uint8Array {
  const bytes = bytesOf("PNG").slice();
  new DataView(bytes.buffer).setUint32(16, 2 ** 20);
  new DataView(bytes.buffer).setUint32(20, 2 ** 20);
  new DataView(bytes.buffer).setUint32(29, Bun.hash.crc32(bytes.subarray(12, 29)));
  return bytes;
}

describe("is refused", () => {
  const cut = (name: string, share: number) => bytesOf(name).slice(0, Math.floor(bytesOf(name).length * share));
  test.each([
    ["nothing", new Uint8Array(), /is empty/],
    ["text", new TextEncoder().encode("What is this picture of?"), /is no image/],
    ["a PNG that is cut", cut("PNG", 0.6), /is damaged/],
    ["a PNG's beginning", cut("PNG", 0.02), /is damaged|is no image/],
    ["a JPEG that is cut", cut("JPEG", 0.6), /its end is missing/],
    ["a JPEG in passes that is cut", cut("JPEG in passes", 0.9), /its end is missing/],
    ["a WebP that is cut", cut("WebP", 0.5), /is damaged/],
    ["a BMP that is cut", cut("BMP", 0.5), /is damaged/],
    ["a GIF's beginning", cut("GIF", 0.1), /is damaged/],
    ["more pixels than there can be", huge(), /has more than 268435456 pixels/],
  ] as [string, Uint8Array, RegExp][])("%s", async (_, bytes, message) => {
    const error = await decodeImage(bytes, "a.png").catch((thrown) => thrown);
    expect(error).toBeInstanceOf(UserError);
    expect(error.message).toMatch(message);
    expect(error.message).toContain("a.png");
    expect(error.hint).toBeTruthy();
  });

  test("whatever bytes of a picture are damaged, it is an image or a UserError", async () => {
    for (const [p, name] of ["PNG", "PNG with a palette", "JPEG", "JPEG in passes", "WebP", "GIF", "BMP"].entries()) {
      const whole = bytesOf(name);
      for (const [i, u] of uniform(`damage ${p}`, 24).entries()) {
        const bytes = whole.slice();
        bytes[Math.floor(((u + 1) / 2) * bytes.length)]! ^= 1 << (i % 8);
        const result = await decodeImage(bytes, name).catch((thrown) => thrown);
        if (result instanceof UserError) continue;
        expect(result.data.length).toBe(result.width * result.height * 3);
      }
    }
  });
});

describe("a file", () => {
  const folder = mkdtempSync(join(tmpdir(), "mlxlm-images-"));
  afterAll(() => rmSync(folder, { recursive: true }));

  test("is read", async () => {
    writeFileSync(join(folder, "picture"), bytesOf("PNG"));
    expect(hashed(await readImage(join(folder, "picture")))).toBe(pictures.PNG!.hash);
  });

  test("that is not there, or a folder, is told", async () => {
    const missing = await readImage(join(folder, "none.png")).catch((thrown) => thrown);
    expect([missing.message, missing.code]).toEqual([
      `there is no image ${join(folder, "none.png")}`,
      ExitCode.notFound,
    ]);
    mkdirSync(join(folder, "album"));
    const album = await readImage(join(folder, "album")).catch((thrown) => thrown);
    expect(album.message).toMatch(/album is a folder, not a file/);
  });
});

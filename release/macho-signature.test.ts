import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { checkedSignature } from "./macho-signature";

/** A library for Apple silicon that its maker's linker signed ad hoc. */
const signed = readFileSync(join(import.meta.dir, "../node_modules/tokenizers/tokenizers.darwin-arm64.node"));

/** The check of a copy that was changed, or of what takes its place. */
function changed(change: (copy: Buffer) => Buffer): () => unknown {
  const file = change(Buffer.from(signed));
  return () => checkedSignature(file);
}

test("a signed library's hashes fit", () => {
  const { identifier, adHoc, pages } = checkedSignature(signed);
  expect(identifier).toBe("tokenizers.darwin-arm64.node");
  expect(adHoc).toBe(true);
  expect(pages).toBeGreaterThan(1000);
});

test("one changed byte in any page is found", () => {
  const pageSize = 4096;
  const { pages } = checkedSignature(signed);
  for (const page of [1, pages >> 1, pages - 1]) {
    const flipped = changed((copy) => {
      const at = page * pageSize + 7;
      copy[at] = copy[at]! ^ 1;
      return copy;
    });
    expect(flipped).toThrow(`the hash of page ${page} of ${pages}`);
  }
});

test("what was cut off, appended, or is no Mach-O file is refused", () => {
  expect(changed((copy) => copy.subarray(0, copy.length - 1))).toThrow("the end");
  expect(changed((copy) => Buffer.concat([copy, Buffer.from("payload")]))).toThrow("bytes after its signature");
  expect(changed(() => Buffer.from("#!/bin/sh"))).toThrow("no 64-bit Mach-O file");
  expect(changed((copy) => copy.subarray(0, 100))).toThrow();
});

test("a file without a signature is refused", () => {
  expect(
    changed((copy) => {
      const codeSignature = 0x1d;
      for (let at = 32, i = 0; i < copy.readUInt32LE(16); i++, at += copy.readUInt32LE(at + 4)) {
        if (copy.readUInt32LE(at) === codeSignature) copy.writeUInt32LE(0x7f, at);
      }
      return copy;
    }),
  ).toThrow("it is not signed");
});

import { expect, test } from "bun:test";
import { notesOf } from "./notes";

const changelog = `# Changelog

## 0.2.0 — unreleased

### Models

- **More.**

## 0.1.0 — 2026-12-01

- **All.**
`;

test("a version's part, without its heading and the next", () => {
  expect(notesOf(changelog, "0.2.0")).toBe("### Models\n\n- **More.**\n");
  expect(notesOf(changelog, "0.1.0")).toBe("- **All.**\n");
});

test("a version without a part is an error, one that begins like another's too", () => {
  expect(() => notesOf(changelog, "0.3.0")).toThrow("0.3.0");
  expect(() => notesOf(changelog, "0.1")).toThrow("0.1");
});

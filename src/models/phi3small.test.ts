/** Phi 3 small's layers that see blocks. */
import { expect, test } from "bun:test";
import { row } from "../../test/parity/decode";
import { fixture } from "../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../test/parity/formula-model";
import * as mx from "../mlx";

const expected = fixture<FormulaModel>("models/phi3small.json");
const tokens = Array.from({ length: 30 }, (_, i) => (i * 41 + 5) % 251);

/** Logits (30, V) of the tokens, one of them another. */
async function logits(config: object, changed: number | null): Promise<Float32Array[]> {
  const model = await formulaModel({ ...expected, config: { ...expected.config, ...config } });
  const ids = tokens.map((id, i) => (i === changed ? id + 1 : id));
  const rows = mx.scope(() => {
    const all = model.forward(row(ids)).squeeze(0);
    return ids.map((_, i) => all.at(i).toArray() as Float32Array);
  });
  model.dispose();
  return rows;
}

const isSame = (a: Float32Array, b: Float32Array) =>
  a.every((value, i) => value === b[i] || Math.abs(value - b[i]!) < 1e-4);

test("a token sees none behind it, in its own block neither", async () => {
  for (const changed of [1, 14, 29]) {
    const [plain, other] = [await logits({}, null), await logits({}, changed)];
    for (let i = 0; i < changed; i++) expect([i, isSame(plain[i]!, other[i]!)]).toEqual([i, true]);
    expect(isSame(plain[changed]!, other[changed]!)).toBe(false);
  }
});

test("behind the latest blocks a head sees every so manieth alone", async () => {
  // One layer of blocks, whose heads all see the same: blocks of 4, the latest 2, and those whose number is 2 mod 3.
  const config = { num_hidden_layers: 1, blocksparse_homo_head_pattern: true };
  const weights = Object.fromEntries(Object.entries(expected.weights).filter(([name]) => !/layers\.[12]\./.test(name)));
  const model = await formulaModel({ ...expected, weights, config: { ...expected.config, ...config } });
  const last = (ids: readonly number[]) =>
    mx.scope(
      () =>
        model
          .forward(row([...ids]))
          .at(0, -1)
          .toArray() as Float32Array,
    );
  const plain = last(tokens);
  const seen = tokens.map((_, at) => !isSame(last(tokens.map((id, i) => (i === at ? id + 1 : id))), plain));
  const blockOf = (at: number) => Math.floor(at / 4);
  expect(seen).toEqual(tokens.map((_, at) => blockOf(29) - blockOf(at) < 2 || blockOf(at) % 3 === 2));
  model.dispose();
});

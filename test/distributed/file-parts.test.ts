/** A rank's part of each tiny model is the same, whether it is cut from tensors in memory or read from a file as a part. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as mx from "../../src/mlx";
import { architecture } from "../../src/models/registry";
import { shardModel } from "../../src/nn";
import { fixture } from "../parity/fixtures";
import { type FormulaModel, formulaTensors } from "../parity/formula-model";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-file-parts-"));
afterAll(() => rmSync(folder, { recursive: true }));

for (const file of readdirSync(new URL("../fixtures/models/", import.meta.url)).sort()) {
  test(file.replace(".json", ""), async () => {
    const of = fixture<FormulaModel>(`models/${file}`);
    const { Args, Model } = await architecture(of.config.model_type);
    const path = join(folder, file.replace(".json", ".safetensors"));
    mx.scope(() => mx.saveSafetensors(path, formulaTensors(of)));

    const part = (isRead: boolean) => {
      const model = new Model(Args.parse(of.config));
      mx.scope(() => {
        const { arrays } = mx.loadSafetensors(path);
        if (isRead) mx.eval(arrays);
        model.loadWeights([...model.sanitize(arrays)], { strict: true });
      });
      // Its messages are never sent.
      shardModel(model, { rank: 1, size: 2 } as mx.distributed.Group);
      return model;
    };
    const [unread, read] = [part(false), part(true)];
    const expected = new Map(read.namedParameters());
    expect(expected.size).toBeGreaterThan(0);
    for (const [name, x] of unread.namedParameters()) {
      expect([name, mx.scope(() => mx.arrayEqual(x, expected.get(name)!).item())]).toEqual([name, 1]);
    }
    unread.dispose();
    read.dispose();
    rmSync(path);
  });
}

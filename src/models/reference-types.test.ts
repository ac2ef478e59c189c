/** Every model type of mlx-lm's is one here, and leads to the same architecture. */
import { describe, expect, test } from "bun:test";
import { fixture } from "../../test/parity/fixtures";
import { architectureOf, modelTypes, ownName } from "./registry";

interface ModelTypes {
  /** Modules that define a model. */
  own: string[];
  /** Other names of theirs in config.json. */
  remapped: Record<string, string>;
  /** A model type, one of `architectures`, and the module that both together lead to. */
  architectures: [modelType: string, architecture: string, own: string][];
}

const { own, remapped, architectures } = fixture<ModelTypes>("model-types.json");

/** Those that another of ours reads, so that they need no file: what config.json differs in is filled in there. */
const sameHere: Record<string, string> = { pixtral: "mistral3" };

describe("mlx-lm's model types", () => {
  test("each is known", () => {
    expect(own.length).toBeGreaterThan(120);
    expect(own.filter((type) => !modelTypes.includes(type))).toEqual([]);
    for (const type of own) expect([type, ownName(type)]).toEqual([type, sameHere[type] ?? type]);
  });

  test("other names lead to the same architecture", async () => {
    expect(Object.keys(remapped).length).toBeGreaterThan(10);
    for (const [type, name] of Object.entries(remapped)) expect([type, ownName(type)]).toEqual([type, name]);
    for (const [model_type, named, name] of architectures) {
      const { Model } = await architectureOf({ model_type, architectures: [named] });
      expect(Model).toBe((await architectureOf({ model_type: name })).Model);
    }
  });
});

import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as mx from ".";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-transforms-"));
afterAll(() => rmSync(folder, { recursive: true }));

const x = () => mx.array([1, 2, 3], "float32");

describe("gradients", () => {
  test("by trees, several arguments, with auxiliary results", () => {
    mx.scope(() => {
      const loss = (p: { w: mx.Tensor; b: mx.Tensor[] }, scale: number, y: mx.Tensor) => {
        const out = p.w.multiply(y).add(p.b[0]!).multiply(scale);
        return [out.sum(), { out, scale }] as [mx.Tensor, { out: mx.Tensor; scale: number }];
      };
      const [[value, extra], [gradP, gradY]] = mx.valueAndGrad(loss, [0, 2])({ w: x(), b: [mx.ones([3])] }, 2, x());
      expect(value.item()).toBe(2 * (1 + 4 + 9 + 3));
      expect(extra.scale).toBe(2);
      expect(extra.out.toList()).toEqual([4, 10, 20]);
      expect(gradP.w.toList()).toEqual([2, 4, 6]);
      expect(gradP.b[0].toList()).toEqual([2, 2, 2]);
      expect(gradY.toList()).toEqual([2, 4, 6]);
    });
  });

  test("of gradients", () => {
    mx.scope(() => {
      const cube = (a: mx.Tensor) => a.power(3).sum();
      const second = mx.grad((a: mx.Tensor) => (mx.grad(cube)(a) as mx.Tensor).sum());
      expect((second(x()) as mx.Tensor).toList()).toEqual([6, 12, 18]);
    });
  });

  test("forward and backward products", () => {
    mx.scope(() => {
      const f = (a: mx.Tensor) => a.square();
      expect(mx.jvp(f, [x()], [mx.ones([3])]).map(([t]) => t!.toList())).toEqual([
        [1, 4, 9],
        [2, 4, 6],
      ]);
      expect(mx.vjp(f, [x()], [x()]).map(([t]) => t!.toList())).toEqual([
        [1, 4, 9],
        [2, 8, 18],
      ]);
    });
  });
});

test("vmap over chosen axes, sharing an input", () => {
  mx.scope(() => {
    const rows = mx.arange(6, undefined, 1, { dtype: "float32" }).reshape(2, 3);
    const dots = mx.vmap((a, b) => a.multiply(b).sum(), { inAxes: [0, null] })(rows, x());
    expect(dots[0]!.toList()).toEqual([0 + 2 + 6, 3 + 8 + 15]);
  });
});

test("a custom rule takes the place of the ops' own", () => {
  mx.scope(() => {
    const straight = mx.customFunction((a) => a.round(), { vjp: (_, [cotangent]) => [cotangent!] });
    const gradient = mx.grad((a: mx.Tensor) => straight(a)[0]!.multiply(3).sum())(x()) as mx.Tensor;
    expect(gradient.toList()).toEqual([3, 3, 3]);
  });
});

test("a checkpointed function runs again for its gradient", () => {
  mx.scope(() => {
    let runs = 0;
    const f = mx.checkpoint((a: mx.Tensor) => {
      runs += 1;
      return a.square();
    });
    const gradient = mx.grad((a: mx.Tensor) => f(a).sum())(x()) as mx.Tensor;
    expect(gradient.toList()).toEqual([2, 4, 6]);
    expect(runs).toBe(2);
  });
});

test("an exported function comes back from its file", () => {
  const path = join(folder, "f.mlxfn");
  mx.scope(() => {
    mx.exportFunction(path, (a, b) => a.add(b).multiply(2), [x(), x()]);
    const f = mx.importFunction(path);
    expect(f(x(), mx.ones([3]))[0]!.toList()).toEqual([4, 6, 8]);
    f.dispose();
    expect(() => f(x(), x())).toThrow(/unknown imported function/);
  });
});

describe("compiled", () => {
  const compiled = (body: string) => {
    const script = `import * as mx from ${JSON.stringify(join(import.meta.dir, "index.ts"))};\n${body}`;
    const run = Bun.spawnSync([process.execPath, "-e", script], {
      env: { ...process.env, MLXLM_COMPILE: "1" },
      stdout: "pipe",
      stderr: "pipe",
    });
    expect(run.stderr.toString()).toBe("");
    return JSON.parse(run.stdout.toString());
  };

  test("functions give what they give otherwise, per structure of their arguments", () => {
    const result = compiled(`
      let traces = 0;
      const f = mx.compile((a, k) => { traces++; return { y: a.exp().multiply(k), k }; });
      const x = mx.array([0, 1], "float32");
      // MLX may trace a second time once its default stream exists.
      f(x, 2);
      f(x, 2);
      traces = 0;
      const out = [f(x, 2), f(x, 2), f(x, 3), f(x, 3)].map(({ y, k }) => [y.toList()[0], k]);
      console.log(JSON.stringify({ out, traces }));`);
    expect(result.out.map(([value, k]: number[]) => [value! / k!, k])).toEqual([
      [1, 2],
      [1, 2],
      [1, 3],
      [1, 3],
    ]);
    expect(result.traces).toBe(1);
  });

  test("random state is read and written: the numbers of the same seed", () => {
    const body = (compile: string) => `
      const draw = ${compile}(() => mx.random.uniform({ shape: [3] })${compile === "mx.compile" ? ", { inputs: [mx.random.state], outputs: [mx.random.state] }" : ""});
      mx.random.seed(42);
      console.log(JSON.stringify([draw().toList(), draw().toList()]));`;
    const plain = compiled(body(""));
    expect(compiled(body("mx.compile"))).toEqual(plain);
    expect(plain[0][0]).toBeCloseTo(0.28517, 4);
  });

  test("a function that throws while traced leaves state as it was", () => {
    const result = compiled(`
      mx.random.seed(1);
      const before = mx.random.state.get().toList();
      const f = mx.compile(() => { mx.random.uniform(); throw new Error("mine"); }, { inputs: [mx.random.state], outputs: [mx.random.state] });
      let message = "";
      try { f(); } catch (error) { message = error.message; }
      console.log(JSON.stringify([message, before, mx.random.state.get().toList()]));`);
    expect(result[0]).toBe("mine");
    expect(result[2]).toEqual(result[1]);
  });
});

test("a group of one process", () => {
  mx.scope(() => {
    const group = mx.distributed.init();
    expect([group.rank, group.size]).toEqual([0, 1]);
    expect(mx.distributed.allSum(x(), { group }).toList()).toEqual([1, 2, 3]);
    expect(mx.distributed.allGather(x()).toList()).toEqual([1, 2, 3]);
    expect(() => mx.distributed.init({ strict: true, backend: "mpi" })).toThrow();
  });
});

test("streams and devices", () => {
  mx.scope(() => {
    expect(mx.isAvailable("metal")).toBe(process.platform === "darwin");
    const stream = mx.newStream("cpu");
    const y = mx.withStream(stream, () => x().add(1));
    mx.eval(y);
    mx.synchronize(stream);
    expect(y.toList()).toEqual([2, 3, 4]);
    expect(mx.isEvaluated(y)).toBe(true);
    expect(typeof mx.deviceInfo("cpu").architecture).toBe("string");
    const before = mx.setCacheLimit(1 << 20);
    expect(mx.setCacheLimit(before)).toBe(1 << 20);
  });
});

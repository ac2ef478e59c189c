/**
 * How many threads a product on the CPU has, and a digest of the result, as one JSON line. For
 * cpu-threads.test.ts; Linux only.
 */
import { readdirSync } from "node:fs";
import * as mx from "../src/mlx";

const count = () => readdirSync("/proc/self/task").length;

const x = mx.random.normal({ shape: [40, 512], key: mx.random.key(1) });
const w = mx.random.normal({ shape: [512, 512], key: mx.random.key(2) });
const [packed, scales, biases] = mx.quantize(w, { bits: 4, groupSize: 64 });
mx.eval(x, packed, scales, biases!);
const before = count();
const product = mx.quantizedMatmul(x, packed, scales, biases, { bits: 4, groupSize: 64 });
mx.eval(product);
const threads = count() - before + 1;
const digest = new Bun.CryptoHasher("sha256").update(product.toArray()).digest("hex");
console.log(JSON.stringify({ threads, digest }));

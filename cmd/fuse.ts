/** `mlxlm fuse`: a model with its adapter made part of it. */
import { join } from "node:path";
import { command } from "../src/cli/command";
import { exportTypeOf } from "../src/convert/gguf/export-types";
import { fuseFlags } from "./fuse.flags";

export default command({
  name: "fuse",
  summary: "Make a trained adapter part of its model",
  examples: [
    "mlxlm fuse --model Qwen/Qwen3-0.6B --adapter-path adapters --save-path my-qwen",
    "mlxlm fuse --model mlx-community/Qwen3-4B-4bit --dequantize",
    "mlxlm fuse --model Qwen/Qwen3-0.6B --export-gguf --gguf-type q8_0",
  ],
  flags: fuseFlags,
  computes: true,

  async run({ flags, out, signal }) {
    const { findModel } = await import("../src/cli/model");
    const { uploadTo } = await import("../src/cli/upload");
    const { checkTarget } = await import("../src/convert/save");
    const { fuseModel } = await import("../src/tune/fuse");
    // Before a download that may take an hour.
    await checkTarget(flags.savePath);
    const upload = flags.uploadRepo === undefined ? null : await uploadTo(flags.uploadRepo, out, signal);

    const ggufPath = flags.ggufPath ?? `ggml-model-${flags.ggufType}.gguf`;
    const source = await findModel(flags.model, out, signal);
    const bar = out.progress("Saving", { unit: "bytes" });
    try {
      const result = await fuseModel(source, flags.adapterPath, flags.savePath, {
        dequantize: flags.dequantize,
        gguf: flags.exportGguf ? { path: ggufPath, type: exportTypeOf(flags.ggufType) } : undefined,
        onStage(line) {
          bar.end();
          out.info(line);
        },
        onProgress: (done, total) => bar.at(done, total),
        signal,
      });
      bar.end();
      const uploaded = upload && (await upload(flags.savePath));
      const gguf = flags.exportGguf && { gguf_path: join(flags.savePath, ggufPath) };
      out.result({ path: flags.savePath, ...result, ...gguf, ...(uploaded && { uploaded }) });
    } finally {
      bar.end();
    }
  },
});

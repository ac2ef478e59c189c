/** `mlxlm convert`: a checkpoint in another precision. */
import { command } from "../src/cli/command";
import { exportTypeOf } from "../src/convert/gguf/export-types";
import { ExitCode, UserError } from "../src/errors";
import { convertFlags } from "./convert.flags";

export default command({
  name: "convert",
  summary: "Convert a model: quantize, dequantize, change its dtype",
  examples: [
    "mlxlm convert --hf-path Qwen/Qwen3-4B -q --mlx-path qwen3-4b-4bit",
    "mlxlm convert --hf-path ./my-model -q --quant-predicate mixed_4_6",
    "mlxlm convert --hf-path mlx-community/Qwen3-4B-4bit -d --dtype bfloat16",
    "mlxlm convert --hf-path Qwen/Qwen3-4B -q --upload-repo me/Qwen3-4B-4bit",
    "mlxlm convert --hf-path ./my-model --gguf q4_k_m --mlx-path my-model-Q4_K_M.gguf",
    "mlxlm convert --hf-path Qwen/Qwen3.5-4B -q --keep-mtp --mlx-path qwen3.5-4b-4bit",
  ],
  flags: convertFlags,
  computes: true,

  async run({ flags, out, signal }) {
    const name = flags.hfPath ?? flags.model;
    if (name === undefined) {
      throw new UserError("convert needs a model", {
        code: ExitCode.usage,
        hint: "Name one: --hf-path FOLDER or REPO",
      });
    }
    if (flags.quantize && flags.dequantize) {
      throw new UserError("--quantize and --dequantize exclude each other", { code: ExitCode.usage });
    }
    if (flags.quantPredicate && (flags.qMode ?? "affine") !== "affine") {
      throw new UserError(`--quant-predicate works with --q-mode affine, not ${flags.qMode}`, { code: ExitCode.usage });
    }
    if (flags.gguf && (flags.quantize || flags.dequantize || flags.dtype || flags.uploadRepo || flags.keepMtp)) {
      throw new UserError("--gguf writes one file, and takes no other way to convert", {
        code: ExitCode.usage,
        hint: "Leave out -q, -d, --dtype, --keep-mtp and --upload-repo.",
      });
    }
    if (flags.gguf && !/\.gguf$/i.test(flags.mlxPath)) {
      throw new UserError(`--mlx-path is ${flags.mlxPath}, but a GGUF file's name ends with .gguf`, {
        code: ExitCode.usage,
        hint: `Name the file: --mlx-path model-${exportTypeOf(flags.gguf)}.gguf`,
      });
    }
    const { findModel } = await import("../src/cli/model");
    const { uploadTo } = await import("../src/cli/upload");
    const { convertModel } = await import("../src/convert/convert");
    const { checkTarget } = await import("../src/convert/save");
    // Before a download that may take an hour.
    await checkTarget(flags.mlxPath);
    const upload = flags.uploadRepo === undefined ? null : await uploadTo(flags.uploadRepo, out, signal);

    const source = await findModel(name, out, signal);
    const bar = out.progress("Saving", { unit: "bytes" });
    if (flags.gguf) {
      const { exportGguf } = await import("../src/convert/gguf/export");
      const type = exportTypeOf(flags.gguf);
      try {
        await exportGguf(source.path, flags.mlxPath, {
          type,
          onProgress: (done, total) => bar.at(done, total),
          signal,
        });
      } finally {
        bar.end();
      }
      out.result({ gguf_path: flags.mlxPath, type });
      return;
    }
    try {
      const result = await convertModel(source, flags.mlxPath, {
        quantize: flags.quantize
          ? { groupSize: flags.qGroupSize, bits: flags.qBits, mode: flags.qMode, recipe: flags.quantPredicate }
          : undefined,
        dequantize: flags.dequantize,
        dtype: flags.dtype,
        keepMtp: flags.keepMtp,
        onStage: (line) => out.info(`[INFO] ${line}`),
        onProgress: (done, total) => bar.at(done, total),
        signal,
      });
      bar.end();
      const uploaded = upload && (await upload(flags.mlxPath));
      out.result({ path: flags.mlxPath, ...result, ...(uploaded && { uploaded }) });
    } finally {
      bar.end();
    }
  },
});

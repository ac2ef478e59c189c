/** The flags of `mlxlm fuse`: mlx-lm's, with its defaults. */
import { flag } from "../src/cli/flags";
import { exportTypeNames } from "../src/convert/gguf/export-types";

export const fuseFlags = {
  model: flag.path("the model: a folder, or a repo of the Hugging Face hub", {
    placeholder: "MODEL",
    default: "mlx_model",
  }),
  savePath: flag.path("folder to save to; it must not exist yet", { default: "fused_model" }),
  adapterPath: flag.path("folder of the trained adapter", { default: "adapters" }),
  uploadRepo: flag.text("repo of the hub to upload the result to", { placeholder: "REPO" }),
  dequantize: flag.switch("save a quantized model in floating point"),
  exportGguf: flag.switch("write a GGUF file too, for llama.cpp"),
  ggufPath: flag.path("name of the GGUF file, in the folder (ggml-model-f16.gguf, or after its type)"),
  ggufType: flag.choice("what weights become in the GGUF file", exportTypeNames, { default: "f16" }),
  trustRemoteCode: flag.switch("accepted; mlxlm runs no code that comes with a model"),
};

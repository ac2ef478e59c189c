/** The flags of `mlxlm convert`: mlx-lm's, with its defaults. */
import { flag } from "../src/cli/flags";
import { ggufFileFlags } from "../src/cli/gguf-file";
import { exportTypeNames } from "../src/convert/gguf/export-types";
import { recipeNames } from "../src/convert/recipes";

export const convertFlags = {
  hfPath: flag.path("the model: a folder, or a repo of the Hugging Face hub", { placeholder: "MODEL" }),
  model: flag.path("the same as --hf-path", { placeholder: "MODEL" }),
  ...ggufFileFlags,
  mlxPath: flag.path("folder to save to; it must not exist yet", { default: "mlx_model" }),
  quantize: flag.switch("quantize the weights", { alias: ["q"] }),
  qGroupSize: flag.integer("how many weights share a scale (affine 64, mxfp4 and mxfp8 32, nvfp4 16)", { min: 1 }),
  qBits: flag.integer("bits of a weight (4; mxfp8 8)", { min: 1, max: 8 }),
  qMode: flag.choice("how weights are quantized (affine)", ["affine", "mxfp4", "nvfp4", "mxfp8"]),
  quantPredicate: flag.choice("a recipe of mixed precision", recipeNames),
  dtype: flag.choice("type of what is not quantized; the configuration's, or the weights' own, unless said", [
    "float16",
    "bfloat16",
    "float32",
  ]),
  gguf: flag.choice("write a GGUF file of this type instead, for llama.cpp, to --mlx-path", exportTypeNames),
  uploadRepo: flag.text("repo of the Hugging Face hub to upload the result to", { placeholder: "REPO" }),
  dequantize: flag.switch("unpack a quantized model", { alias: ["d"] }),
  keepMtp: flag.switch("keep the model's draft layers (multi-token prediction), in mtp.safetensors, for --mtp"),
  trustRemoteCode: flag.switch("accepted; mlxlm runs no code that comes with a model"),
};

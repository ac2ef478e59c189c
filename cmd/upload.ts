/** `mlxlm upload`: a model's folder goes to the hub. */
import { command } from "../src/cli/command";
import { uploadFlags } from "./upload.flags";

export default command({
  name: "upload",
  summary: "Upload a model to the Hugging Face hub",
  examples: [
    "mlxlm upload --path qwen3-4b-4bit --upload-repo me/Qwen3-4B-4bit",
    "HF_TOKEN=hf_… mlxlm upload --upload-repo me/my-model",
  ],
  flags: uploadFlags,

  async run({ flags, out, signal }) {
    const { uploadTo } = await import("../src/cli/upload");
    const upload = await uploadTo(flags.uploadRepo, out, signal);
    out.result(await upload(flags.path));
  },
});

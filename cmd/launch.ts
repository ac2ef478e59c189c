/** `mlxlm launch`: a command on several processes, here or on other machines. */
import { command } from "../src/cli/command";
import { launchFlags } from "./launch.flags";

export default command({
  name: "launch",
  summary: "Run a command on several GPUs or machines at once",
  examples: [
    'mlxlm launch -n 2 generate --model demo --prompt "What is 27 + 58?"',
    "mlxlm launch --hosts 10.0.0.1,10.0.0.2 --check",
    "mlxlm launch --hostfile hosts.json chat --model mlx-community/Qwen3-32B-4bit",
    "mlxlm launch -n 4 lora --train --model ./my-model --data ./my-data --batch-size 8",
  ],
  flags: launchFlags,
  wraps: true,

  async run({ flags, out, signal }) {
    const { launch } = await import("../src/cli/launch");
    process.exitCode = await launch(flags, out, signal);
  },
});

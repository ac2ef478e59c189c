/** `mlxlm share`: a model goes from the host that has it to the others. */
import { command } from "../src/cli/command";
import { ExitCode, UserError } from "../src/errors";
import { isLaunched } from "../src/mlx/group-environment";
import { shareFlags } from "./share.flags";

export default command({
  name: "share",
  summary: "Copy a model, file or folder to several machines",
  examples: [
    "mlxlm share --hostfile hosts.json --model mlx-community/Qwen3-4B-4bit",
    "mlxlm launch --hosts 10.0.0.1,10.0.0.2 share --path my-model",
    "mlxlm share --hostfile hosts.json --path data.tar --dst /data/data.tar",
  ],
  flags: shareFlags,
  ranks: true,

  async run({ flags, out, signal }) {
    const { path, model, dst, tmpdir, hostfile } = flags;
    if (path === undefined && model === undefined) {
      throw new UserError("share needs to know what to copy", { code: ExitCode.usage, hint: "--path or --model" });
    }
    if (!isLaunched()) {
      const { launchShare } = await import("../src/cli/launch/share");
      process.exitCode = await launchShare({ path, model, dst, tmpdir, hostfile }, out, signal);
      return;
    }
    const mx = await import("../src/mlx");
    const { share } = await import("../src/hub/share");
    const { sizeInWords } = await import("../src/cli/table");
    const bar = out.progress("Sharing", { unit: "bytes" });
    const began = performance.now();
    const shared = await share(
      mx.distributed.init({ strict: true }),
      { path, model, dst, tmpdir },
      {
        signal,
        onStart: ({ source, files, bytes }) =>
          out.info(`Rank ${source} sends ${files} ${files === 1 ? "file" : "files"}, ${sizeInWords(bytes)}B`),
        onProgress: (done, total) => bar.at(done, total),
      },
    );
    bar.end();
    const seconds = (performance.now() - began) / 1000;
    for (const [rank, place] of shared.places.entries()) {
      const how = rank === shared.source ? "has" : shared.had.includes(rank) ? "had" : "got";
      out.text(`rank ${rank} ${how} ${place}\n`);
    }
    out.result({ ...shared, seconds });
  },
});

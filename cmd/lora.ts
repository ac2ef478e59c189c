/** `mlxlm lora`: fine-tuning, and the test of what came of it. */
import { command } from "../src/cli/command";
import { columnsOf } from "../src/cli/width";
import { ExitCode, UserError } from "../src/errors";
import { loraFlags } from "./lora.flags";

export default command({
  name: "lora",
  summary: "Fine-tune a model: LoRA, DoRA, or whole blocks",
  examples: [
    "mlxlm lora --train --model mlx-community/Qwen3-0.6B-4bit --data ./my-data --iters 300",
    "mlxlm lora --config lora.yaml --learning-rate 2e-5",
    "mlxlm lora --resume --adapter-path adapters",
    "mlxlm lora --test --model mlx-community/Qwen3-0.6B-4bit --data ./my-data",
  ],
  flags: loraFlags,
  computes: true,
  ranks: true,
  hasLongSteps: true,

  async run({ flags, out, signal }) {
    const { openSettings } = await import("../src/tune/open-settings");
    const { json: _, device: __, debug: ___, help: ____, resume, ...given } = flags;
    const { settings, warnings } = await openSettings(given, { resume });
    for (const line of warnings) out.warn(line);
    if (!settings.train && !settings.test) {
      throw new UserError("there is nothing to do: neither --train nor --test is given", {
        code: ExitCode.usage,
        hint: "For example: mlxlm lora --train --data FOLDER",
      });
    }
    const { findModel } = await import("../src/cli/model");
    const { fineTune } = await import("../src/tune/fine-tune");
    const { columnsLine, dataLines, headerLines, packingLine, ReportLines, stepNote, testLine } = await import(
      "../src/tune/report-lines"
    );

    const { path } = await findModel(settings.model, out, signal);
    const bars = out.bars({
      download: ["Downloading data", "bytes"],
      encode: ["Reading data", "it"],
      train: ["Training", "it"],
      loss: ["Calculating loss", "it"],
    });
    const line = (text: string) => {
      bars.end();
      out.info(text);
    };
    const reports = new ReportLines();
    try {
      const end = await fineTune(path, settings, {
        resume,
        signal,
        onStage: line,
        onWarning(text) {
          bars.end();
          out.warn(text);
        },
        onDownload: (done, total) => bars.at("download", done, total),
        onEncode: (done, total) => bars.at("encode", done, total),
        onData(event) {
          for (const each of dataLines(event.split, event, settings.max_seq_length, columnsOf(2))) line(each);
          out.event(event);
        },
        onPacking(event) {
          line(packingLine(event));
          out.event(event);
        },
        onModel(fitting, trainable) {
          for (const each of [...headerLines(fitting), trainable, columnsLine]) line(each);
        },
        onStep: (iteration, figures) => bars.at("train", iteration, settings.iters, stepNote(figures)),
        onLossBatch: (done, total) => bars.at("loss", done, total),
        onEvent(event) {
          bars.end();
          const report = reports.lineOf(event);
          if (report !== null) out.text(`${report}\n`);
          out.event(event);
        },
      });
      bars.end();
      if (end.curve !== null) {
        out.plot(end.history.train);
        out.info(`The losses as a picture: ${end.curve}`);
      }
      if (end.test) {
        out.text(`${testLine(end.test)}\n`);
        out.event({ type: "test", ...end.test });
      }
      if (end.interrupted) {
        const saved = end.iteration
          ? ` The training is saved; go on with --resume --adapter-path ${settings.adapter_path}`
          : "";
        out.info(`Interrupted.${saved}`);
        process.exitCode = ExitCode.interrupted;
      }
    } finally {
      bars.end();
    }
  },
});

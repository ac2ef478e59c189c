/** The closing report of the commands that quantize: measured with a bar, printed as a table. */
import type { Calibration } from "../quant/calibration";
import {
  adviceWhereWorse,
  type QualityReport,
  qualityLines,
  type ReportOptions,
  reportQuality,
} from "../quant/quality-report";
import type { Output } from "./output";

/** Measures on what was held out, else on the calibration data itself. @throws UserError as `reportQuality` */
export async function printQuality(
  out: Output,
  { heldOut, first }: Calibration,
  options: Omit<ReportOptions, "rows" | "heldOut" | "onRow">,
): Promise<QualityReport> {
  const bar = out.progress("Measuring", { unit: "it" });
  const measured = heldOut.length > 0 ? heldOut : first;
  const report = await reportQuality({
    ...options,
    rows: measured,
    heldOut: heldOut.length > 0,
    onRow: (done, total) => bar.at(done, total),
  }).finally(() => bar.end());
  for (const line of qualityLines(report)) out.text(`${line}\n`);
  const advice = adviceWhereWorse(report);
  if (advice !== null) out.warn(advice);
  return report;
}

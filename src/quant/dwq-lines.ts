/** What DWQ prints, in mlx-lm's words. */
import type { DwqEvent, DwqProgress } from "./dwq";

export function validationLine({ iteration, loss }: Extract<DwqEvent, { type: "val" }>): string {
  return `Validation: it=${iteration}, loss=${loss.toFixed(3)}`;
}

export function trainingLine(event: Extract<DwqEvent, { type: "train" }>): string {
  const { iteration, loss, trained_tokens: tokens, tokens_per_second: speed, peak_memory: peak } = event;
  const counts = `it=${iteration}, avg_loss=${loss.toFixed(4)}, total_tokens=${tokens}`;
  return `${counts}, toks_per_sec=${speed.toFixed(3)}, peak_memory_gb=${peak.toFixed(3)}`;
}

/** A warning where the model is worse than before; else null. */
export function worseLine({ initial, latest }: DwqProgress): string | null {
  if (initial === null || latest === null || initial >= latest) return null;
  const [before, after] = [initial, latest].map((loss) => loss.toFixed(3));
  const crosses = "❌❌❌";
  return `${crosses}\n[WARNING] Final validation loss ${after} is worse than initial validation loss ${before}. Model quality will likely be degraded.\nTry a lower --learning-rate, more --num-samples, or data like what the model is for (--data-path).\n${crosses}`;
}

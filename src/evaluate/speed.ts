/** What a benchmark measures. Field names are mlx-lm's. */

export interface Speed {
  /** Tokens a second. */
  prompt_tps: number;
  generation_tps: number;
  /** GB (10⁹ bytes), the most since the process began. */
  peak_memory: number;
}

export interface Trial extends Speed {
  /** Seconds. */
  total_time: number;
}

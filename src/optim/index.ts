/** Optimizers, schedules, gradient tools. */
export * from "./adam";
export * from "./clip";
export * from "./schedules";

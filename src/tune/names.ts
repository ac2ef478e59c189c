/** Choices that command lines offer; here, so that help loads nothing else. */
export const fineTuneTypes = ["lora", "dora", "full"] as const;
export const optimizerNames = ["adam", "adamw", "muon", "sgd", "adafactor"] as const;

/** The optimizer and the learning rate that settings ask for. */
import { z } from "zod";
import { ExitCode, UserError } from "../errors";
import {
  Adafactor,
  AdamW,
  cosineDecay,
  exponentialDecay,
  joinSchedules,
  type LearningRate,
  linearSchedule,
  Muon,
  type Optimizer,
  type Schedule,
  Sgd,
  stepDecay,
} from "../optim";
import { problemOf } from "./adapter-files";
import type { ScheduleSettings, Settings } from "./settings";

/** Schedules by mlx.optimizers' names, with how many arguments they take. */
const schedules: Record<string, { make: (...numbers: number[]) => Schedule; least: number; most: number }> = {
  cosine_decay: { make: (start, steps, end) => cosineDecay(start!, steps!, end), least: 2, most: 3 },
  exponential_decay: { make: (start, rate) => exponentialDecay(start!, rate!), least: 2, most: 2 },
  linear_schedule: { make: (start, end, steps) => linearSchedule(start!, end!, steps!), least: 3, most: 3 },
  step_decay: { make: (start, rate, size) => stepDecay(start!, rate!, size!), least: 3, most: 3 },
};

/**
 * The schedule of `lr_schedule`, after a linear warm-up where that is asked for.
 * @throws UserError for an unknown name or the wrong number of arguments
 */
export function buildSchedule({ name, arguments: numbers, warmup, warmup_init }: ScheduleSettings): Schedule {
  const kind = Object.hasOwn(schedules, name) ? schedules[name] : undefined;
  const wrong = (problem: string) =>
    new UserError(`lr_schedule: ${problem}`, {
      code: ExitCode.usage,
      hint: "For example {name: cosine_decay, arguments: [1e-5, 1000], warmup: 100}",
    });
  if (!kind) throw wrong(`there is no schedule "${name}", only ${Object.keys(schedules).join(", ")}`);
  const { make, least, most } = kind;
  if (numbers.length < least || numbers.length > most) {
    const wanted = least === most ? `${least}` : `${least} or ${most}`;
    throw wrong(`${name} takes ${wanted} arguments, not ${numbers.length}`);
  }
  const schedule = make(...numbers);
  if (warmup === 0) return schedule;
  return joinSchedules([linearSchedule(warmup_init, numbers[0]!, warmup), schedule], [warmup + 1]);
}

const betas = z.tuple([z.number(), z.number()]).optional();
const flag = z.boolean().optional();
const number = z.number().optional();

const AdamConfig = z.strictObject({ betas, eps: number, bias_correction: flag });
const AdamWConfig = AdamConfig.extend({ weight_decay: number });
const SgdConfig = z.strictObject({ momentum: number, weight_decay: number, dampening: number, nesterov: flag });
const MuonConfig = z.strictObject({ momentum: number, weight_decay: number, nesterov: flag, ns_steps: number });
const AdafactorConfig = z.strictObject({
  eps: betas,
  clip_threshold: number,
  decay_rate: number,
  beta_1: z.number().nullish(),
  weight_decay: number,
  scale_parameter: flag,
  relative_step: flag,
  warmup_init: flag,
});

type Maker = (rate: LearningRate, given: unknown) => Optimizer;

/** Optimizers by mlx-lm's names; their arguments have mlx.optimizers' names. */
const makers: Record<string, Maker> = {
  adam(rate, given) {
    const { eps, betas, bias_correction: biasCorrection } = argumentsOf("adam", AdamConfig, given);
    return new AdamW(rate, { eps, betas, biasCorrection, weightDecay: 0 });
  },
  adamw(rate, given) {
    const config = argumentsOf("adamw", AdamWConfig, given);
    const { eps, betas, bias_correction: biasCorrection, weight_decay: weightDecay } = config;
    return new AdamW(rate, { eps, betas, biasCorrection, weightDecay });
  },
  sgd(rate, given) {
    const { weight_decay: weightDecay, ...rest } = argumentsOf("sgd", SgdConfig, given);
    try {
      return new Sgd(rate, { weightDecay, ...rest });
    } catch (error) {
      throw new UserError(`optimizer_config.sgd: ${(error as Error).message}`, { code: ExitCode.usage });
    }
  },
  muon(rate, given) {
    const { weight_decay: weightDecay, ns_steps: steps, ...rest } = argumentsOf("muon", MuonConfig, given);
    return new Muon(rate, { weightDecay, steps, ...rest });
  },
  adafactor(rate, given) {
    const config = argumentsOf("adafactor", AdafactorConfig, given);
    const { eps, clip_threshold: clipThreshold, decay_rate: decayRate, beta_1: beta1 } = config;
    const { weight_decay: weightDecay, scale_parameter: scaleParameter, relative_step: relativeStep } = config;
    return new Adafactor(rate, {
      ...{ eps, clipThreshold, decayRate, beta1, weightDecay },
      ...{ scaleParameter, relativeStep, warmupInit: config.warmup_init },
    });
  },
};

/** @throws UserError for an optimizer or an argument of it that there is not */
export function makeOptimizer({ optimizer, optimizer_config, lr_schedule, learning_rate }: Settings): Optimizer {
  const name = optimizer.toLowerCase();
  const make = Object.hasOwn(makers, name) ? makers[name] : undefined;
  if (!make) {
    throw new UserError(`there is no optimizer ${optimizer}`, {
      code: ExitCode.usage,
      hint: `Take one of ${Object.keys(makers).join(", ")}.`,
    });
  }
  return make(lr_schedule ? buildSchedule(lr_schedule) : learning_rate, optimizer_config[name] ?? {});
}

function argumentsOf<T extends z.ZodType>(name: string, schema: T, given: unknown): z.infer<T> {
  const parsed = schema.safeParse(given);
  if (parsed.success) return parsed.data;
  throw new UserError(`optimizer_config.${name}: ${problemOf(parsed.error)}`, { code: ExitCode.usage });
}

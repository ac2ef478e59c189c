/** The optimizer and the learning rate that settings ask for. */
import { z } from "zod";
import { ExitCode, UserError } from "../errors";
import {
  AdamW,
  cosineDecay,
  exponentialDecay,
  joinSchedules,
  type LearningRate,
  linearSchedule,
  type Schedule,
  stepDecay,
} from "../optim";
import { problemOf } from "./adapter-files";
import type { ScheduleSettings, Settings } from "./settings";
import type { Optimizer } from "./train-step";

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

/** @throws UserError for an optimizer or an argument of it that there is not */
export function makeOptimizer({ optimizer: name, optimizer_config, lr_schedule, learning_rate }: Settings): Optimizer {
  const rate: LearningRate = lr_schedule ? buildSchedule(lr_schedule) : learning_rate;
  const given = optimizer_config[name] ?? {};
  if (name === "adam") {
    const { eps, betas, bias_correction: biasCorrection } = argumentsOf(name, AdamConfig, given);
    return new AdamW(rate, { eps, betas, biasCorrection, weightDecay: 0 });
  }
  if (name === "adamw") {
    const config = argumentsOf(name, AdamWConfig, given);
    const { eps, betas, bias_correction: biasCorrection, weight_decay: weightDecay } = config;
    return new AdamW(rate, { eps, betas, biasCorrection, weightDecay });
  }
  throw new UserError(`the optimizer ${name} is not available yet`, {
    code: ExitCode.usage,
    hint: "Take adam or adamw: --optimizer adamw",
  });
}

function argumentsOf<T extends z.ZodType>(name: string, schema: T, given: unknown): z.infer<T> {
  const parsed = schema.safeParse(given);
  if (parsed.success) return parsed.data;
  throw new UserError(`optimizer_config.${name}: ${problemOf(parsed.error)}`, { code: ExitCode.usage });
}

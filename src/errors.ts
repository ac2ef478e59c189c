/** Exit codes of the executable, by what went wrong. */
export const ExitCode = {
  ok: 0,
  failure: 1,
  usage: 2,
  notFound: 3,
  auth: 4,
  resources: 5,
  interrupted: 130,
} as const;

export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

/**
 * An error that a user can act on: `message` says what and where, `hint` the next step.
 * Anything else that reaches the top is a defect of ours and is printed as one.
 */
export class UserError extends Error {
  override name = "UserError";

  constructor(
    message: string,
    readonly options: { code?: ExitCode; hint?: string; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause });
  }

  get code(): ExitCode {
    return this.options.code ?? ExitCode.failure;
  }

  get hint(): string | undefined {
    return this.options.hint;
  }
}

/** Whether an error, MLX's or another, says that there is no memory for something. */
export function isLackOfMemory(error: unknown): boolean {
  return error instanceof Error && /\bmalloc\b|unable to allocate|out of memory|bad_alloc/i.test(error.message);
}

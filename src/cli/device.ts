/** The device that a command computes on. */
import { ExitCode, UserError } from "../errors";

/** Makes it the default of all that follows. @throws UserError (usage) where this machine has none such */
export async function useDevice(device: "cpu" | "gpu"): Promise<void> {
  // The native library is loaded by those only who name a device.
  const mx = await import("../mlx");
  if (device === "gpu" && mx.deviceCount("gpu") === 0) {
    throw new UserError("there is no GPU here that MLX can use", {
      code: ExitCode.usage,
      hint: "Leave out --device: the CPU computes then. On Linux, MLX needs an NVIDIA GPU and its driver.",
    });
  }
  mx.setDefaultDevice(device);
}

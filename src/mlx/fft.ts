/** Fourier transforms. */
import * as abi from "./generated/ops";
import type { Handle } from "./native";
import { wrap } from "./operand";
import type { Tensor } from "./tensor";

const norms = { backward: 0, ortho: 1, forward: 2 } as const;
export type FftNorm = keyof typeof norms;

export interface Transform {
  /** Length: the axis is cut or padded with zeros to it. */
  n?: number;
  axis?: number;
  norm?: FftNorm;
}

export interface TransformN {
  /** Lengths, one per axis. */
  s?: readonly number[];
  axes?: readonly number[];
  norm?: FftNorm;
}

interface Kernel {
  sized: (a: Handle, n: readonly number[], axes: readonly number[], norm: number) => Handle;
  axes: (a: Handle, axes: readonly number[], norm: number) => Handle;
  all: (a: Handle, norm: number) => Handle;
}

const forward: Kernel = { sized: abi.fft_fftn, axes: abi.fft_fftn_axes, all: abi.fft_fftn_all };
const inverse: Kernel = { sized: abi.fft_ifftn, axes: abi.fft_ifftn_axes, all: abi.fft_ifftn_all };
const realForward: Kernel = { sized: abi.fft_rfftn, axes: abi.fft_rfftn_axes, all: abi.fft_rfftn_all };
const realInverse: Kernel = { sized: abi.fft_irfftn, axes: abi.fft_irfftn_axes, all: abi.fft_irfftn_all };

function over(kernel: Kernel, x: Tensor, { s, axes, norm = "backward" }: TransformN): Tensor {
  if (s) return wrap(kernel.sized(x.handle, s, axes ?? s.map((_, i) => i - s.length), norms[norm]));
  return wrap(axes ? kernel.axes(x.handle, axes, norms[norm]) : kernel.all(x.handle, norms[norm]));
}

const along =
  (kernel: Kernel) =>
  (x: Tensor, { n, axis = -1, norm }: Transform = {}): Tensor =>
    over(kernel, x, { s: n === undefined ? undefined : [n], axes: [axis], norm });

const plane =
  (kernel: Kernel) =>
  (x: Tensor, { axes = [-2, -1], ...rest }: TransformN = {}): Tensor =>
    over(kernel, x, { axes, ...rest });

const everywhere =
  (kernel: Kernel) =>
  (x: Tensor, options: TransformN = {}): Tensor =>
    over(kernel, x, options);

export const fft = along(forward);
export const ifft = along(inverse);
export const rfft = along(realForward);
export const irfft = along(realInverse);
export const fft2 = plane(forward);
export const ifft2 = plane(inverse);
export const rfft2 = plane(realForward);
export const irfft2 = plane(realInverse);
export const fftn = everywhere(forward);
export const ifftn = everywhere(inverse);
export const rfftn = everywhere(realForward);
export const irfftn = everywhere(realInverse);

/** Sample frequencies, in cycles per unit of `d`. */
export const fftfreq = (n: number, d = 1): Tensor => wrap(abi.fft_fftfreq(n, d));
export const rfftfreq = (n: number, d = 1): Tensor => wrap(abi.fft_rfftfreq(n, d));

/** Moves the zero frequency to the middle of the axes; all where none are given. */
export const fftshift = (x: Tensor, axes: readonly number[] = x.shape.map((_, i) => i)): Tensor =>
  wrap(abi.fft_fftshift(x.handle, axes));
export const ifftshift = (x: Tensor, axes: readonly number[] = x.shape.map((_, i) => i)): Tensor =>
  wrap(abi.fft_ifftshift(x.handle, axes));

export interface ShortTime {
  hopLength?: number;
  winLength?: number;
  window?: Tensor;
  center?: boolean;
  padMode?: "reflect" | "constant" | "edge";
  norm?: FftNorm;
  onesided?: boolean;
}

/** Short-time Fourier transform. */
export function stft(x: Tensor, nFft = 2048, options: ShortTime = {}): Tensor {
  const {
    hopLength = null,
    winLength = null,
    window,
    center = true,
    padMode = "reflect",
    norm = "backward",
    onesided = null,
  } = options;
  return wrap(
    abi.fft_stft(x.handle, nFft, hopLength, winLength, window?.handle ?? null, center, padMode, norms[norm], onesided),
  );
}

/** The inverse of `stft`. */
export function istft(
  x: Tensor,
  options: Omit<ShortTime, "padMode"> & { nFft?: number; length?: number } = {},
): Tensor {
  const {
    nFft = null,
    hopLength = null,
    winLength = null,
    window,
    center = true,
    norm = "backward",
    onesided = null,
    length = null,
  } = options;
  return wrap(
    abi.fft_istft(x.handle, nFft, hopLength, winLength, window?.handle ?? null, center, norms[norm], onesided, length),
  );
}

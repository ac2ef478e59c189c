/**
 * Images in another size by Lanczos' windowed sinc, as Pillow resamples: one side, then the other, each rounded to bytes, with
 * weights of 22 bits behind the point. So a model gets the pixels that it gets from Python, to the bit.
 */
import type { Pixels } from "./pixels";

const lobes = 3;

const sinc = (x: number) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

const lanczos = (x: number) => (x >= -lobes && x < lobes ? sinc(x) * sinc(x / lobes) : 0);

/** Bits of a weight behind the point. */
const precision = 22;

interface Window {
  /** The first source pixel. */
  start: number;
  /** Of the source pixels from there on, as integers. */
  weights: Int32Array;
}

/** For each of `to` pixels, the ones of `from` that it is the mean of. */
function windows(from: number, to: number): Window[] {
  const step = from / to;
  const stretch = Math.max(step, 1);
  const reach = lobes * stretch;
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * step;
    const start = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const end = Math.min(Math.trunc(centre + reach + 0.5), from);
    const raw = Array.from({ length: end - start }, (_, j) => lanczos((j + start - centre + 0.5) / stretch));
    const sum = raw.reduce((sum, weight) => sum + weight, 0);
    const scaled = raw.map((weight) => (weight / (sum || 1)) * 2 ** precision);
    return { start, weights: Int32Array.from(scaled, (weight) => Math.trunc(weight + Math.sign(weight) / 2)) };
  });
}

/** Lines of `count` pixels become lines of other lengths; strides are in bytes, a pixel's colours are neighbours. */
function resampleLines(
  source: Uint8Array,
  target: Uint8Array,
  { lines, windows, pixel, line, newPixel, newLine }: Strides,
): void {
  for (let l = 0; l < lines; l++) {
    for (let i = 0; i < windows.length; i++) {
      const { start, weights } = windows[i]!;
      for (let colour = 0; colour < 3; colour++) {
        let sum = 2 ** (precision - 1);
        let at = l * line + start * pixel + colour;
        for (let j = 0; j < weights.length; j++, at += pixel) sum += source[at]! * weights[j]!;
        const value = sum / 2 ** precision;
        target[l * newLine + i * newPixel + colour] = Math.min(Math.max(value, 0), 255);
      }
    }
  }
}

interface Strides {
  lines: number;
  windows: readonly Window[];
  pixel: number;
  line: number;
  newPixel: number;
  newLine: number;
}

function widened(image: Pixels, width: number): Pixels {
  if (image.width === width) return image;
  const data = new Uint8Array(width * image.height * 3);
  const strides = { pixel: 3, line: image.width * 3, newPixel: 3, newLine: width * 3 };
  resampleLines(image.data, data, { lines: image.height, windows: windows(image.width, width), ...strides });
  return { width, height: image.height, data };
}

function heightened(image: Pixels, height: number): Pixels {
  if (image.height === height) return image;
  const data = new Uint8Array(image.width * height * 3);
  const strides = { pixel: image.width * 3, line: 3, newPixel: image.width * 3, newLine: 3 };
  resampleLines(image.data, data, { lines: image.width, windows: windows(image.height, height), ...strides });
  return { width: image.width, height, data };
}

/** The image stretched to another size; itself where it has that size. */
export function resample(image: Pixels, width: number, height: number): Pixels {
  const [narrower, lower] = [image.width - width, image.height - height];
  // Pillow's rule (13.0): the height first where it loses more than twice as many pixels, since less is left to do then.
  if (lower > 0 && lower > 2 * narrower) return widened(heightened(image, height), width);
  return heightened(widened(image, width), height);
}

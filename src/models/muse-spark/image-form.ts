/** How Muse Spark takes images: in squares of pixels, as near to their size and their shape as the squares allow. */
import type { ImageForm } from "../images";

/** How many squares an image may have. */
const [fewest, most] = [1, 4096];

interface Grid {
  rows: number;
  columns: number;
}

/** The grid that changes an image's shape least, of the four around the ideal one; null where none has a number allowed. */
function leastDistorted(ideal: Grid, shape: number, side: number): Grid | null {
  let best: (Grid & { distortion: number }) | null = null;
  for (const rows of [Math.floor(ideal.rows), Math.ceil(ideal.rows)]) {
    for (const columns of [Math.floor(ideal.columns), Math.ceil(ideal.columns)]) {
      const count = rows * columns;
      if (rows < 1 || columns < 1 || count < fewest || count > most) continue;
      const distortion = Math.abs((rows * side) / (columns * side) - shape);
      if (!best || distortion < best.distortion) best = { rows, columns, distortion };
    }
  }
  return best;
}

/** Of all grids with a number allowed the nearest to the ideal one. */
function nearest(ideal: Grid): Grid {
  let best = { rows: 1, columns: 1, distance: Infinity };
  for (let rows = 1; rows <= most; rows++) {
    const [least, greatest] = [Math.ceil(fewest / rows), Math.floor(most / rows)];
    const columns = Math.min(Math.max(ideal.columns, least), greatest);
    const distance = (rows - ideal.rows) ** 2 + (columns - ideal.columns) ** 2;
    if (distance < best.distance) best = { rows, columns: Math.trunc(columns), distance };
  }
  return best;
}

/** Rows and columns of squares of `side` pixels for an image of so many pixels. */
export function gridOf(width: number, height: number, side: number): Grid {
  let ideal: Grid = { rows: height / side, columns: width / side };
  const ratio = ideal.columns / ideal.rows;
  const count = ideal.rows * ideal.columns;
  if (count > most || count < fewest) {
    const rows = Math.sqrt((count > most ? most : fewest) / ratio);
    ideal = { rows, columns: rows * ratio };
  }
  return leastDistorted(ideal, height / width, side) ?? nearest(ideal);
}

/** @param side of the square of pixels that is one token */
export const imageForm = (side: number): ImageForm => ({
  placeholder: "<|patch|>",
  fit(width, height) {
    const { rows, columns } = gridOf(width, height, side);
    return { width: columns * side, height: rows * side, tokens: rows * columns };
  },
  written: (tokens) => `<|image_start|>${"<|patch|>".repeat(tokens)}<|image_end|>`,
  mean: [0.5, 0.5, 0.5],
  deviation: [0.5, 0.5, 0.5],
});

/** Points as a picture of text: each Braille letter has two columns of four dots. */

/** A letter's dots as bits, by column and row. */
const dots = [
  [0x01, 0x02, 0x04, 0x40],
  [0x08, 0x10, 0x20, 0x80],
] as const;
const blank = 0x2800;

/**
 * Lines of text, the highest value at the top, with the ends of the scale beside them. Points are in the order of x, and
 * joined; those that are not finite are left out. No lines where there are fewer than two.
 */
export function braillePlot(
  points: readonly (readonly [x: number, y: number])[],
  { columns, rows }: { columns: number; rows: number },
): string[] {
  const finite = points.filter(([, y]) => Number.isFinite(y));
  if (finite.length < 2) return [];
  const [first, last] = [finite[0]![0], finite.at(-1)![0]];
  const values = finite.map(([, y]) => y);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const labels = [most, least].map((value) => value.toPrecision(4));
  const margin = Math.max(...labels.map((label) => label.length));
  const width = Math.max(1, columns - margin - 1);
  const cells = Array.from({ length: rows }, () => new Uint8Array(width));
  const [right, bottom] = [width * 2 - 1, rows * 4 - 1];
  const place = ([x, y]: readonly [number, number]): [number, number] => [
    last > first ? ((x - first) / (last - first)) * right : 0,
    most > least ? ((most - y) / (most - least)) * bottom : bottom,
  ];
  let [x0, y0] = place(finite[0]!);
  for (const point of finite) {
    const [x, y] = place(point);
    const steps = Math.max(1, Math.ceil(Math.max(Math.abs(x - x0), Math.abs(y - y0))));
    for (let i = 0; i <= steps; i++) {
      const column = Math.round(x0 + ((x - x0) * i) / steps);
      const row = Math.round(y0 + ((y - y0) * i) / steps);
      cells[row >> 2]![column >> 1]! |= dots[column & 1]![row & 3]!;
    }
    [x0, y0] = [x, y];
  }
  return cells.map((letters, row) => {
    const label = row === 0 ? labels[0]! : row === rows - 1 ? labels[1]! : "";
    return `${label.padStart(margin)} ${[...letters].map((bits) => String.fromCharCode(blank + bits)).join("")}`;
  });
}

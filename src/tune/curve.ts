/** The losses of a training as a picture: an SVG file. */

/** A loss by the number of steps that were done. */
export type Point = readonly [iteration: number, loss: number];

/** The losses that were reported. */
export interface History {
  train: readonly Point[];
  val: readonly Point[];
}

/** More points than this cannot be told apart. */
const mostPoints = 2000;

/** The points that have a place, at equal distances where there are too many. */
export function drawable(points: readonly Point[]): readonly Point[] {
  const finite = points.filter(([, loss]) => Number.isFinite(loss));
  const stride = Math.ceil(finite.length / mostPoints);
  return stride > 1 ? finite.filter((_, i) => i % stride === 0 || i === finite.length - 1) : finite;
}

const [width, height] = [800, 420];
const margin = { left: 64, right: 24, top: 40, bottom: 48 };

/** Numbers at which an axis has marks: some five, at 1, 2 or 5 times a power of ten. */
export function ticks(least: number, most: number): number[] {
  const rough = Math.max(most - least, Number.EPSILON * Math.max(1, Math.abs(most))) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
  const first = Math.ceil(least / step - 1e-9);
  const count = Math.floor((most - first * step) / step + 1e-9);
  return Array.from({ length: Math.max(0, count) + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** The ends of an axis, a little apart where all values are the same. */
function ends(values: readonly number[]): [number, number] {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  if (least < most) return [least, most];
  const room = Math.abs(least) * 0.05 || 1;
  return [least - room, most + room];
}

const escaped = (text: string) =>
  text.replace(/[&<>"]/g, (one) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[one]!);

/** The picture, light or dark as the reader's page is; null where there is nothing to draw. */
export function curveSvg(history: History, title: string): string | null {
  const [train, val] = [drawable(history.train), drawable(history.val)];
  const points = [...train, ...val];
  if (points.length === 0) return null;
  const [x0, x1] = ends(points.map(([iteration]) => iteration));
  const [y0, y1] = ends(points.map(([, loss]) => loss));
  const x = (iteration: number) => margin.left + ((iteration - x0) / (x1 - x0)) * (width - margin.left - margin.right);
  const y = (loss: number) =>
    height - margin.bottom - ((loss - y0) / (y1 - y0)) * (height - margin.top - margin.bottom);
  const at = (value: number) => value.toFixed(1);
  const path = (line: readonly Point[]) =>
    line.map(([iteration, loss], i) => `${i === 0 ? "M" : "L"}${at(x(iteration))} ${at(y(loss))}`).join("");

  const rows = ticks(y0, y1).map(
    (loss) =>
      `<path class="grid" d="M${margin.left} ${at(y(loss))}H${width - margin.right}"/>` +
      `<text x="${margin.left - 8}" y="${at(y(loss) + 4)}" text-anchor="end">${loss}</text>`,
  );
  const columns = ticks(x0, x1).map(
    (iteration) =>
      `<text x="${at(x(iteration))}" y="${height - margin.bottom + 20}" text-anchor="middle">${iteration}</text>`,
  );
  const dots = val.map(
    ([iteration, loss]) => `<circle class="val" cx="${at(x(iteration))}" cy="${at(y(loss))}" r="3"/>`,
  );
  const legend = (["train", "val"] as const)
    .filter((kind) => (kind === "train" ? train : val).length > 0)
    .map((kind, i) => {
      const left = width - margin.right - 70 * (i + 1);
      return `<path class="line ${kind}" d="M${left} 20h20"/><text x="${left + 26}" y="24">${kind}</text>`;
    });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img">`,
    `<title>${escaped(title)}</title>`,
    "<style>",
    "svg{background:#fff;font:13px system-ui,sans-serif}text{fill:#444}.grid{stroke:#e4e4e4}",
    ".line{fill:none;stroke-width:2;stroke-linejoin:round}.train{stroke:#2563eb}.val{stroke:#ea580c}",
    "circle.val{fill:#ea580c;stroke:none}",
    "@media(prefers-color-scheme:dark){svg{background:#111}text{fill:#bbb}.grid{stroke:#333}}",
    "</style>",
    `<text x="${margin.left}" y="24">${escaped(title)}</text>`,
    ...rows,
    ...columns,
    `<text x="${(margin.left + width - margin.right) / 2}" y="${height - 8}" text-anchor="middle">iteration</text>`,
    ...legend,
    `<path class="line train" d="${path(train)}"/>`,
    `<path class="line val" d="${path(val)}"/>`,
    ...dots,
    "</svg>",
    "",
  ].join("\n");
}

/** What a chat begins with: mlx-lm's panel of facts, and how to leave. */
import type { Colours } from "../colour";

const widest = 120;

/** Lines of a panel that is as wide as its longest row, or as the terminal. */
export function banner(rows: readonly (readonly [name: string, value: string])[], columns: number, colours: Colours) {
  const title = " mlxlm chat ";
  const nameWidth = Math.max(...rows.map(([name]) => name.length));
  const room = Math.min(columns, widest) - 6;
  const cells = rows.map(([name, value]) => [name.padEnd(nameWidth), fitted(value, room - nameWidth - 3)] as const);
  const width = Math.max(title.length, ...cells.map(([name, value]) => name.length + 3 + Bun.stringWidth(value)));
  return [
    `${colours.dim("╭─")}${colours.accent(title)}${colours.dim(`${"─".repeat(width + 3 - title.length)}╮`)}`,
    ...cells.map(([name, value]) => {
      const space = " ".repeat(width - name.length - 3 - Bun.stringWidth(value));
      return `${colours.dim("│")}  ${name}   ${colours.bold(value)}${space}  ${colours.dim("│")}`;
    }),
    colours.dim(`╰${"─".repeat(width + 4)}╯`),
    "  commands    q exit   r reset   h help",
    "",
  ];
}

/** A value cut so that it takes so many columns at most. */
function fitted(value: string, width: number): string {
  const line = value.replace(/[\p{Cc}\s]+/gu, " ");
  return Bun.stringWidth(line) <= width ? line : `${Bun.sliceAnsi(line, 0, Math.max(0, width - 3))}...`;
}

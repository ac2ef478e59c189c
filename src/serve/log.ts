/** What the server writes down, by weight: mlx-lm's levels. */

export const logLevels = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] as const;

export type LogLevel = (typeof logLevels)[number];

export type Log = (level: LogLevel, message: string) => void;

/** @param write gets a line without its end */
export function leveledLog(least: LogLevel, write: (line: string) => void, now = () => new Date()): Log {
  const from = logLevels.indexOf(least);
  return (level, message) => {
    if (logLevels.indexOf(level) < from) return;
    const time = now().toISOString().replace("T", " ").replace(/\..*/, "");
    // A line is a line: what a client sends must not look like another one.
    write(`${time} - ${level} - ${message.replace(/[\r\n]+/g, " ")}`);
  };
}

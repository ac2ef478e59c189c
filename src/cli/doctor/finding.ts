/** What doctor found. */
export type Status = "ok" | "warn" | "fail";

export interface Finding {
  group: string;
  name: string;
  status: Status;
  /** What is. */
  text: string;
  /** What to do about it. */
  hint?: string;
}

/** Findings of one group. */
export type Found = Omit<Finding, "group">;

export const ok = (name: string, text: string): Found => ({ name, status: "ok", text });
export const warn = (name: string, text: string, hint?: string): Found => ({ name, status: "warn", text, hint });
export const fail = (name: string, text: string, hint?: string): Found => ({ name, status: "fail", text, hint });

/** "25.3 GB" */
export const gb = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;

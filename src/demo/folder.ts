/** Where the demo model's files lie: inside the executable, or in a checkout beside this file. */
import { join } from "node:path";
import { embeddedFolder } from "../embedded";

/** What `--model demo` means. */
export const demoName = "demo";

let folder: string | undefined;

export function demoFolder(): string {
  folder ??= embeddedFolder("demo") ?? join(import.meta.dir, "model");
  return folder;
}

/** A text with the demo's folder, where it was asked for, called as the user called it. */
export function withDemoNamed(text: string): string {
  return folder === undefined ? text : text.replaceAll(folder, demoName);
}

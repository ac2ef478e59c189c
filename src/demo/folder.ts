/** Where the demo model's files lie: inside the executable, or in a checkout beside this file. */
import { join } from "node:path";
import { embeddedFolder } from "../embedded";

/** What `--model demo` means. */
export const demoName = "demo";

export function demoFolder(): string {
  return embeddedFolder("demo") ?? join(import.meta.dir, "model");
}

/** A question before something that cannot be undone. */
import type { Output } from "./output";

/** Whether stdin answers with a yes; the end of it is a no. */
export async function confirmed(question: string, out: Output): Promise<boolean> {
  out.text(`${question} (y/n) `);
  for await (const line of console) {
    const answer = line.trim().toLowerCase();
    if (["y", "yes", "1"].includes(answer)) return true;
    if (["n", "no", "0", ""].includes(answer)) return false;
    out.text(`Invalid input. Must be one of: yes/no/y/n or empty for no\n${question} (y/n) `);
  }
  return false;
}

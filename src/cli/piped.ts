/** Whether there is text on stdin without being asked for. */
import { fstatSync } from "node:fs";

const stdin = 0;

/** For a pipe or a file; not for a terminal, nor for /dev/null. */
export function hasPipedText(): boolean {
  try {
    const facts = fstatSync(stdin);
    return facts.isFIFO() || facts.isFile() || facts.isSocket();
  } catch {
    return false;
  }
}

/** Warnings: what a user should know although the work goes on. Any room may say one; whoever runs the work prints it. */

type Listener = (line: string) => void;

let listener: Listener | null = null;

/** Each is said once a process: a command may load one model several times. */
const said = new Set<string>();

/** Those that nobody has heard yet. */
let unheard: string[] = [];

export function warn(line: string): void {
  if (said.has(line)) return;
  said.add(line);
  if (listener) listener(line);
  else unheard.push(line);
}

/** Hears the warnings from here on, and those before that nobody heard; in the place of an earlier listener. */
export function onWarning(next: Listener): void {
  listener = next;
  for (const line of unheard) next(line);
  unheard = [];
}

/** What `work` warns of, said before or not; no other listener hears it. For tests. */
export async function warningsOf(work: () => Promise<unknown>): Promise<string[]> {
  const before = { listener, said: [...said] };
  const heard: string[] = [];
  said.clear();
  listener = (line) => heard.push(line);
  try {
    await work();
  } finally {
    listener = before.listener;
    for (const line of before.said) said.add(line);
  }
  return heard;
}

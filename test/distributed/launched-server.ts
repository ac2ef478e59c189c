/** `mlxlm launch … server` in processes of its own. */
import { join } from "node:path";

const main = join(import.meta.dir, "../../cmd/main.ts");

export interface LaunchedServer {
  process: Bun.Subprocess<"ignore", "pipe", "pipe">;
  url: string;
  post(path: string, body: object, init?: RequestInit): Promise<Response>;
  /** Ends it as Ctrl-C does, and gives its exit code. */
  stop(): Promise<number>;
}

/** A server on ranks, once it listens. @throws Error with its last words where it does not */
export async function launchServer(ranks: readonly string[], way: readonly string[]): Promise<LaunchedServer> {
  const words = ["launch", ...ranks, "server", "--port", "0", "--json", ...way];
  const child = Bun.spawn([process.execPath, main, ...words], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, MLXLM_THREADS: "1" },
  });
  const problems = child.stderr.text();
  let said = "";
  for await (const chunk of child.stdout) {
    said += new TextDecoder().decode(chunk);
    const url = /"url":"([^"]+)"/.exec(said)?.[1];
    if (!url) continue;
    return {
      process: child,
      url,
      post: (path, body, init) =>
        fetch(url + path, {
          ...init,
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify(body),
        }),
      async stop() {
        child.kill("SIGINT");
        return await child.exited;
      },
    };
  }
  throw new Error(await problems);
}

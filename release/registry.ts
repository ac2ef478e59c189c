/** A registry of npm packages on this machine, for proof: Verdaccio, on the loopback interface, with no way out. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "../vendor/mlx/toolchain";

export interface Registry {
  url: string;
  close(): Promise<void>;
}

/** Installs npm packages into a folder, once. */
export function tools(
  folder: string,
  packages: Record<string, string>,
  overrides: Record<string, string> = {},
): string {
  mkdirSync(folder, { recursive: true });
  const manifest = { private: true, dependencies: packages, overrides };
  writeFileSync(join(folder, "package.json"), JSON.stringify(manifest));
  run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefer-offline"], { cwd: folder });
  return join(folder, "node_modules/.bin");
}

/** @param tool folder for Verdaccio itself @param work a fresh folder for what is published */
export async function startRegistry(tool: string, work: string): Promise<Registry> {
  const port = 20_000 + Math.floor(Math.random() * 20_000);
  const url = `http://127.0.0.1:${port}`;
  mkdirSync(work, { recursive: true });
  const settings = {
    storage: join(work, "storage"),
    listen: url,
    max_body_size: "1gb",
    packages: { "**": { access: "$all", publish: "$all" } },
    log: { type: "stdout", level: "warn" },
  };
  const config = join(work, "config.yaml");
  // JSON is YAML as well.
  writeFileSync(config, JSON.stringify(settings));
  // Its own node-fetch can't be installed everywhere.
  const bin = tools(tool, { verdaccio: "6.8.0" }, { "node-fetch": "2.7.0" });
  const child = Bun.spawn(["node", join(bin, "verdaccio"), "--config", config], {
    stdout: "ignore",
    stderr: "inherit",
  });
  for (let tries = 0; ; tries++) {
    const answers = await fetch(`${url}/-/ping`).then(
      ({ ok }) => ok,
      () => false,
    );
    if (answers) break;
    if (tries === 300 || child.exitCode !== null) throw new Error("Verdaccio does not start");
    await Bun.sleep(100);
  }
  return {
    url,
    async close() {
      child.kill();
      await child.exited;
    },
  };
}

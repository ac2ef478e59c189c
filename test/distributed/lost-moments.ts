/** Moments at which a rank can be lost: what two ranks run, and how the moment is known to have come. */
import { mkdirSync, readFileSync, watch, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { demoFolder } from "../../src/demo/folder";
import { copyWithoutEnd } from "../endless-model";
import { startHub } from "../hub-server";
import { neighbouringPorts } from "./neighbouring-ports";

/** Two ranks at work. */
export interface Pair {
  /** Process ids, by rank. */
  pids: readonly [number, number];
  /** Which of them is to be lost. */
  victim: 0 | 1;
  /** Comes true where the first rank has written this to stdout. */
  says(text: string | RegExp): Promise<RegExpExecArray>;
  /** Writes to the first rank's stdin. */
  tell(text: string): void;
}

export interface Moment {
  words: readonly string[];
  /** Flags of launch. */
  launch?: readonly string[];
  env?: Record<string, string>;
  /** Comes true at the moment. */
  comes(pair: Pair): Promise<void>;
  /** Afterwards. */
  end?(): void;
}

/** Each makes what it needs in a folder of its own. */
export const moments = {
  start: () => ({ words: ["benchmark", "--model", "demo"], comes: async () => {} }),

  /** The victim is stopped before it comes, so the other waits for it. */
  handshake() {
    const port = neighbouringPorts(2);
    return {
      launch: ["--starting-port", `${port}`],
      words: ["benchmark", "--model", "demo"],
      async comes({ pids, victim }) {
        process.kill(pids[victim], "SIGSTOP");
        while (!(await answers(port + 1 - victim))) await Bun.sleep(20);
      },
    };
  },

  download(folder) {
    const files = { "config.json": readFileSync(join(demoFolder(), "config.json")), "model.safetensors": "never sent" };
    const hub = startHub({ "org/name": { files, large: ["model.safetensors"], silences: 100 } });
    return {
      words: ["benchmark", "--model", "org/name"],
      env: { HF_ENDPOINT: hub.url, HF_HUB_CACHE: join(folder, "hub") },
      async comes() {
        while (!hub.seen.some(({ path }) => path.endsWith("/model.safetensors"))) await Bun.sleep(20);
      },
      end: hub.stop,
    };
  },

  prompt: () => ({
    words: ["benchmark", "--model", "demo", "-p", "100000", "-g", "1"],
    comes: async ({ says }) => void (await says("warmup")),
  }),

  answer: (folder) => ({
    words: ["generate", "--model", endless(folder), "--prompt", "Tell me a story.", "--max-tokens", "-1"],
    comes: async ({ says }) => void (await says(/.{40}/s)),
  }),

  "between answers": () => ({
    words: ["chat", "--model", "demo", "--temp", "0", "--json"],
    async comes({ says, tell }) {
      tell("What is 1 + 2?\n");
      await says("1 + 2 = 3.");
    },
  }),

  training: (folder) => ({
    words: [...lora(folder), "--steps-per-report", "1"],
    comes: async ({ says }) => void (await says('"type":"train"')),
  }),

  saving: (folder) => ({
    words: [...lora(folder), "--save-every", "1"],
    comes: () => fileIn(join(folder, "adapters"), "safetensors"),
  }),

  evaluation: (folder) => ({
    words: ["evaluate", "--model", "demo", "--tasks", "many", "--include-path", manyQuestions(folder)].concat([
      ...["--output-dir", join(folder, "results"), "--batch-size", "1"],
    ]),
    comes: () => fileIn(join(folder, "results"), ".answers"),
  }),

  "idle server": () => ({
    words: [...server, "--model", "demo"],
    comes: async ({ says }) => void (await says('"listening"')),
  }),

  "busy server": (folder) => ({
    words: [...server, "--model", endless(folder)],
    async comes({ says }) {
      const [, url] = await says(/"url":"([^"]+)"/);
      const messages = [{ role: "user", content: "Tell me a story." }];
      const response = await fetch(`${url}/v1/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ messages, stream: true, max_tokens: 1_000_000 }),
      });
      await response.body!.getReader().read();
    },
  }),
} satisfies Record<string, (folder: string) => Moment>;

export type MomentName = keyof typeof moments;

const server = ["server", "--port", "0", "--json"];

const endless = (folder: string) => copyWithoutEnd(demoFolder(), join(folder, "model"));

function lora(folder: string): string[] {
  const data = join(folder, "data");
  mkdirSync(data);
  const rows = Array.from({ length: 8 }, (_, i) => `${JSON.stringify({ text: `Row ${i} of eight.` })}\n`).join("");
  for (const split of ["train", "valid"]) writeFileSync(join(data, `${split}.jsonl`), rows);
  const sizes = ["--batch-size", "2", "--iters", "1000000", "--val-batches", "1", "--num-layers", "1"];
  const places = ["--data", data, "--adapter-path", join(folder, "adapters")];
  return ["lora", "--train", "--model", "demo", "--json", ...places, ...sizes];
}

/** More than are answered in a minute. */
function manyQuestions(folder: string): string {
  const data = join(folder, "data");
  mkdirSync(data);
  const rows = Array.from(
    { length: 20_000 },
    (_, i) => `${JSON.stringify({ question: `Is ${i} even?`, label: i % 2 })}\n`,
  );
  writeFileSync(join(data, "test.jsonl"), rows.join(""));
  const task = {
    ...{ task: "many", dataset_path: data, test_split: "test" },
    ...{ doc_to_text: "{{question}}", doc_to_target: "label", doc_to_choice: ["yes", "no"] },
    ...{ metric_list: [{ metric: "acc" }] },
  };
  writeFileSync(join(folder, "many.yaml"), JSON.stringify(task));
  return folder;
}

/** Comes true where a file with this in its name is made or changed. */
async function fileIn(folder: string, name: string): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const { promise, resolve } = Promise.withResolvers<void>();
  const watcher = watch(folder, (_, file) => file?.includes(name) && resolve());
  await promise.finally(() => watcher.close());
}

const answers = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.on("connect", () => socket.destroy());
    socket.on("error", () => resolve(false));
    socket.on("close", (hadError) => resolve(!hadError));
  });

/** Hubs whose answers do not end, grow as they are unpacked, or come too slowly; and those that ask to wait. */
import { afterEach, expect, test } from "bun:test";
import { brotliCompressSync, constants, deflateSync } from "node:zlib";
import { hubEnvironment } from "../../test/hub-environment";
import { commit } from "../../test/hub-server";
import { openDataset } from "../data/dataset";
import { ExitCode, UserError } from "../errors";
import { resolveModel } from "./resolve";

hubEnvironment();

const servers: { stop(force: boolean): void }[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.stop(true);
});

/** A hub with one answer to all questions. */
function serve(answer: (request: Request, count: number) => Response | Promise<Response>): void {
  let count = 0;
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    idleTimeout: 0,
    fetch: (request) => answer(request, count++),
  });
  servers.push(server);
  process.env.HF_ENDPOINT = `http://127.0.0.1:${server.port}`;
}

async function failure(work: () => Promise<unknown> = () => resolveModel("org/name")): Promise<UserError> {
  const error = await work().catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(UserError);
  expect((error as UserError).hint).toBeTruthy();
  return error as UserError;
}

const facts = { sha: commit, id: "org/name" };

/** The same piece again and again, with a pause before each. */
function endless(piece: string, pause = 0): ReadableStream {
  const bytes = new TextEncoder().encode(piece);
  return new ReadableStream({
    async pull(controller) {
      if (pause > 0) await Bun.sleep(pause);
      controller.enqueue(bytes);
    },
  });
}

/** Rises by no more than so many bytes as the work runs. */
async function inMemory(most: number, work: () => Promise<unknown>): Promise<void> {
  Bun.gc(true);
  const before = process.memoryUsage.rss();
  await work();
  expect(process.memoryUsage.rss() - before).toBeLessThan(most);
}

test("an endless answer", async () => {
  serve(() => new Response(endless(" ".repeat(65_536))));
  expect((await failure()).message).toBe("the hub says too much about org/name: its answer does not end after 16 MB");
});

test("an endless answer that refuses", async () => {
  serve(() => new Response(endless("x".repeat(65_536)), { status: 403 }));
  expect((await failure()).message).toMatch(/does not end after 16 MB|gated/);
});

test.each(["gzip", "deflate", "br", "zstd"])("few bytes that become many by %s", async (encoding) => {
  const zeros = new Uint8Array(500_000_000);
  const packed = {
    gzip: () => Bun.gzipSync(zeros),
    deflate: () => deflateSync(zeros),
    br: () => brotliCompressSync(zeros, { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } }),
    zstd: () => Bun.zstdCompressSync(zeros),
  }[encoding]!();
  serve(() => new Response(packed, { headers: { "Content-Encoding": encoding } }));
  await inMemory(300_000_000, async () => expect((await failure()).message).toMatch(/does not end after 16 MB/));
});

test("an answer that is packed as usual is read", async () => {
  serve((request) => {
    expect(request.headers.get("Accept-Encoding")).toBe("identity");
    const text = JSON.stringify(new URL(request.url).pathname.includes("/tree/") ? [] : facts);
    return new Response(Bun.gzipSync(text), { headers: { "Content-Encoding": "gzip" } });
  });
  expect((await failure()).message).toBe("org/name is no model: it has no config.json");
});

test.each(["lz4", "gzip, gzip, gzip", "constructor"])("a packing of no known kind: %s", async (encoding) => {
  serve(() => new Response("{}", { headers: { "Content-Encoding": encoding } }));
  expect((await failure()).message).toMatch(/its answer is packed as/);
});

test("a packed answer that is damaged", async () => {
  serve(() => new Response("no gzip", { headers: { "Content-Encoding": "gzip" } }));
  expect((await failure()).message).toMatch(/org\/name could not be downloaded/);
});

test("a list of files that goes on and on", async () => {
  serve((request, count) => {
    const { pathname, origin } = new URL(request.url);
    if (!pathname.includes("/tree/")) return Response.json(facts);
    const file = { type: "file", path: `f${count}`, size: 1, oid: "a".repeat(40) };
    return Response.json([file], { headers: { Link: `<${origin}${pathname}?cursor=${count}>; rel="next"` } });
  });
  expect((await failure()).message).toMatch(/does not end after 1000 pages/);
  expect((await failure(() => openDataset("org/name"))).message).toMatch(/the dataset org\/name: .*1000 pages/);
});

test("an answer that drips", async () => {
  process.env.HF_HUB_DOWNLOAD_TIMEOUT = "0.4";
  serve(() => new Response(endless(" ", 20)));
  const began = performance.now();
  expect((await failure()).message).toMatch(/does not end after 4 s/);
  expect(performance.now() - began).toBeLessThan(10_000);
});

test.each([
  [429, "120", "the hub has had too many requests from here and asks to wait 120 s"],
  [503, "120", "the hub is overloaded and asks to wait 120 s"],
  [503, "99999999999", "the hub is overloaded and asks to wait 99999999999 s"],
])("a long wait is told at once: %d, %s s", async (status, seconds, message) => {
  serve(() => new Response("", { status, headers: { "Retry-After": seconds } }));
  expect(await failure()).toMatchObject({ message, code: ExitCode.failure });
});

test("a wait of some seconds is told, once", async () => {
  serve((_, count) =>
    count === 0 ? new Response("", { status: 429, headers: { "Retry-After": "5" } }) : Response.json([]),
  );
  const told: string[] = [];
  const stop = new AbortController();
  const onWarning = (line: string) => {
    told.push(line);
    setTimeout(() => stop.abort(), 200);
  };
  await failure(() => resolveModel("org/name", { signal: stop.signal, onWarning }));
  expect(told).toEqual(["the hub asks to wait 5 s"]);
});

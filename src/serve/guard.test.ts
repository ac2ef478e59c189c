/** Who may ask, and how much: keys, hosts, origins, sizes, times. */
import { afterAll, describe, expect, test } from "bun:test";
import { connect } from "node:net";
import { testServer } from "../../test/serve";
import { readServerFlags } from "./flags";
import { Guard, isLoopback } from "./guard";

const open = testServer({ maxBody: 2000, bodyTimeout: 0.4 });
const closed = testServer({
  guard: { apiKeys: ["secret", "other"], allowedOrigins: ["http://app.example"], allowedHosts: ["box"] },
});
const anyOrigin = testServer({ guard: { allowedOrigins: ["*"] } });
afterAll(() => Promise.all([open.stop(), closed.stop(), anyOrigin.stop()]));

/** What a server answers to bytes: its status, its header, its body. */
function raw(port: number, request: string, more: (send: (text: string) => void) => void = () => {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1", () => {
      socket.write(request);
      more((text) => void socket.write(text));
    });
    let text = "";
    socket.on("data", (data) => {
      text += data;
      if (/\r\n\r\n.+/s.test(text)) socket.end();
    });
    socket.on("close", () => resolve(text));
    socket.on("error", reject);
  });
}

const get = (server: typeof open, headers: Record<string, string>) => {
  const lines = Object.entries({ Host: `127.0.0.1:${server.port}`, ...headers }).map(
    ([name, value]) => `${name}: ${value}`,
  );
  return raw(server.port, `GET /v1/models HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`);
};
const statusOf = async (answer: Promise<string>) => Number((await answer).split(" ")[1]);

describe("the name that the server is called by", () => {
  test.each(["localhost", "127.0.0.1:1", "[::1]:8080", "192.168.0.7", "app.localhost", "LOCALHOST."])(
    "%s is its own",
    async (Host) => {
      expect(await statusOf(get(open, { Host }))).toBe(200);
    },
  );

  test.each([
    "evil.example",
    "evil.example:80",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "a b",
    "x@localhost",
    "",
  ])("%j is not", async (Host) => {
    const status = await statusOf(get(open, { Host }));
    expect([400, 403]).toContain(status);
  });

  test("a name that the operator gives is", async () => {
    const Authorization = "Bearer secret";
    expect(await statusOf(get(closed, { Host: "box:80", Authorization }))).toBe(200);
    expect(await statusOf(get(open, { Host: "box:80" }))).toBe(403);
  });
});

describe("web pages", () => {
  test("of other origins are refused, and no CORS is spoken", async () => {
    for (const Origin of ["http://evil.example", "null", "http://127.0.0.1:1", "file://"]) {
      const answer = await get(open, { Origin });
      expect(answer).toStartWith("HTTP/1.1 403");
      expect(answer.toLowerCase()).not.toContain("access-control");
    }
    expect(await get(open, { Origin: `http://127.0.0.1:${open.port}` })).toStartWith("HTTP/1.1 200");
  });

  test("of an allowed origin may read the answer, and only those", async () => {
    const Authorization = "Bearer secret";
    const answer = await get(closed, { Origin: "http://app.example", Authorization });
    expect(answer).toStartWith("HTTP/1.1 200");
    expect(answer.toLowerCase()).toContain("access-control-allow-origin: http://app.example");
    expect(await statusOf(get(closed, { Origin: "http://app.example.evil", Authorization }))).toBe(403);
    expect((await get(anyOrigin, { Origin: "http://any.example" })).toLowerCase()).toContain(
      "access-control-allow-origin: http://any.example",
    );
  });

  test("ask first with OPTIONS", async () => {
    const ask = (server: typeof open, Origin: string) =>
      raw(
        server.port,
        `OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: ${Origin}\r\nConnection: close\r\n\r\n`,
      );
    const allowed = await ask(closed, "http://app.example");
    expect(allowed).toStartWith("HTTP/1.1 204");
    expect(allowed.toLowerCase()).toContain("access-control-allow-headers");
    expect(await ask(closed, "http://evil.example")).toStartWith("HTTP/1.1 403");
    expect(await ask(open, "http://app.example")).toStartWith("HTTP/1.1 403");
  });
});

describe("keys", () => {
  test.each([
    {},
    { Authorization: "Bearer wrong" },
    { Authorization: "Bearer " },
    { Authorization: "secret" },
    { "x-api-key": "secre" },
    { "x-api-key": "secrets" },
  ] as Record<string, string>[])("%j does not open", async (headers) => {
    const answer = await get(closed, headers);
    expect(answer).toStartWith("HTTP/1.1 401");
    expect(answer).toContain("invalid_api_key");
    expect(answer).not.toContain("secret,");
  });

  test.each([
    { Authorization: "Bearer secret" },
    { Authorization: "bearer other" },
    { "x-api-key": "secret" },
  ] as Record<string, string>[])("%j opens", async (headers) => {
    expect(await statusOf(get(closed, headers))).toBe(200);
  });

  test("health is told without one, and nothing else", async () => {
    expect((await fetch(`${closed.url}/health`)).status).toBe(200);
    for (const path of ["/metrics", "/v1/models", "/tokenize", "/v1/chat/completions", "/nothing"]) {
      expect((await fetch(closed.url + path, { method: "POST", body: "{}" })).status).toBe(401);
    }
  });

  test("all keys are compared, in full", () => {
    const guard = new Guard({ apiKeys: ["a", "b"], allowedHosts: [], allowedOrigins: [] });
    expect(() => guard.checkKey(new Headers({ "x-api-key": "b" }))).not.toThrow();
    expect(() => guard.checkKey(new Headers({ "x-api-key": "" }))).toThrow(/needed/);
  });
});

describe("sizes and times", () => {
  const post = (length: string, body: string, more?: (send: (text: string) => void) => void) =>
    raw(open.port, `POST /tokenize HTTP/1.1\r\nHost: localhost\r\n${length}Connection: close\r\n\r\n${body}`, more);

  test("a body beyond the limit, told or chunked", async () => {
    expect(await post("Content-Length: 2001\r\n", `{"content":"${"x".repeat(1987)}"}`)).toStartWith("HTTP/1.1 413");
    const chunk = `${(1500).toString(16)}\r\n${"x".repeat(1500)}\r\n`;
    expect(await post("Transfer-Encoding: chunked\r\n", `${chunk}${chunk}0\r\n\r\n`)).toStartWith("HTTP/1.1 413");
  });

  test("a body that does not come to its end", async () => {
    const began = performance.now();
    const answer = await post("Content-Length: 100\r\n", '{"content": ');
    expect(answer).toStartWith("HTTP/1.1 408");
    expect(performance.now() - began).toBeLessThan(5000);
  });

  test("a body that drips for as long as it is taken", async () => {
    const started = Promise.withResolvers<ReturnType<typeof setInterval>>();
    const answer = await post("Content-Length: 2000\r\n", '{"content": "', (send) => {
      started.resolve(setInterval(() => send("x"), 20));
    });
    clearInterval(await started.promise);
    expect(answer).toStartWith("HTTP/1.1 408");
  });

  test("headers that stop, that drip, that never begin: the connection ends, and others are answered meanwhile", async () => {
    const kept = (begin: string, drip: string) => {
      const { promise, resolve } = Promise.withResolvers<string>();
      let said = "";
      const socket = connect(open.port, "127.0.0.1", () => socket.write(begin));
      const timer = setInterval(() => drip !== "" && socket.write(drip), 100);
      socket.on("data", (data) => {
        said += data;
      });
      socket.on("error", () => {});
      socket.on("close", () => {
        clearInterval(timer);
        resolve(said);
      });
      return promise;
    };
    const head = "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: ";
    const ends = Promise.all([kept(head, ""), kept(head, "x"), kept("", "")]);
    expect((await fetch(`${open.url}/health`)).status).toBe(200);
    for (const said of await ends) expect(said).not.toContain("200 OK");
    expect((await fetch(`${open.url}/health`)).status).toBe(200);
  }, 60_000);

  test("a body in chunks, slowly", async () => {
    const answer = await post("Transfer-Encoding: chunked\r\n", '8\r\n{"conten\r\n', (send) => {
      setTimeout(() => send('8\r\nt":"hi"}\r\n0\r\n\r\n'), 50);
    });
    expect(answer).toStartWith("HTTP/1.1 200");
  });

  test.each(["Content-Length: -1\r\n", "Content-Length: x\r\n", "Content-Length: 5\r\nContent-Length: 6\r\n"])(
    "%j",
    async (length) => {
      const status = await statusOf(post(length, "{}"));
      expect([400, 411, Number.NaN]).toContain(status);
    },
  );

  test("a packed body", async () => {
    expect(await statusOf(post("Content-Length: 2\r\nContent-Encoding: gzip\r\n", "{}"))).toBe(415);
    expect(await statusOf(post("Content-Length: 2\r\nContent-Encoding: identity\r\n", "{}"))).not.toBe(415);
  });

  test("no body, and an unknown path", async () => {
    expect(await post("Content-Length: 0\r\n", "")).toStartWith("HTTP/1.1 400");
    expect((await fetch(`${open.url}/v1/nothing`)).status).toBe(404);
    expect((await fetch(`${open.url}/v1/chat/completions`)).status).toBe(404);
  });

  test.each([
    "/v1/models/..%2f..%2fetc%2fpasswd",
    "/v1/models/%2e%2e/%2e%2e/etc/passwd",
    "/..%2f..%2fetc/passwd",
    "/v1/models/%00",
    "/v1/models/%ff%fe",
    "/v1/models/100%",
  ])("%s reads no file", async (path) => {
    const answer = await raw(open.port, `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
    expect(answer).toStartWith("HTTP/1.1 404");
    expect(answer).not.toContain("root:");
  });
});

describe("addresses", () => {
  const flags = { host: "127.0.0.1", unprotected: false, keepAlive: "-1", maxBody: "1MB" };

  test.each(["0.0.0.0", "::", "192.168.0.2", "box.example"])("%s needs a key, or a word", (host) => {
    expect(() => readServerFlags({ ...flags, host })).toThrow(/nothing protects it/);
    expect(readServerFlags({ ...flags, host, apiKey: "x" }).apiKeys).toEqual(["x"]);
    expect(readServerFlags({ ...flags, host }, "y").apiKeys).toEqual(["y"]);
    expect(readServerFlags({ ...flags, host, unprotected: true }).apiKeys).toEqual([]);
  });

  test.each(["127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]"])("%s is this machine", (host) => {
    expect(isLoopback(host)).toBe(true);
    expect(() => readServerFlags({ ...flags, host })).not.toThrow();
  });

  test.each([
    [{ keepAlive: "soon" }, /keep-alive/],
    [{ maxBody: "lots" }, /max-body/],
    [{ promptCacheBytes: "-1" }, /prompt-cache-bytes/],
    [{ adapters: "pirate" }, /NAME=PATH/],
  ])("%j is refused", (wrong, message) => {
    expect(() => readServerFlags({ ...flags, ...wrong })).toThrow(message);
  });
});

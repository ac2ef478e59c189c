/** The life of a server: many clients, a full queue, failures, its end. */
import { afterAll, describe, expect, test } from "bun:test";
import { testServer } from "../../test/serve";
import { until } from "../../test/until";
import { ExitCode, UserError } from "../errors";
import * as mx from "../mlx";

const story = { messages: [{ role: "user", content: "Tell me a story about a fox." }] };
const sum = { messages: [{ role: "user", content: "What is 27 + 58?" }] };
/** Of these it makes a long answer: no end is drawn. */
const endless = { ...story, logit_bias: { 0: -100, 2: -100 }, max_tokens: 800 };

const servers: { stop(): Promise<void> }[] = [];
const start = (...options: Parameters<typeof testServer>) => {
  const server = testServer(...options);
  servers.push(server);
  return server;
};
afterAll(() => Promise.all(servers.map((server) => server.stop())));

const textOf = async (response: Response) =>
  ((await response.json()) as { choices: { message: { content: string } }[] }).choices[0]!.message.content;

describe("many at once", () => {
  test("each gets what it gets alone", async () => {
    const server = start();
    const questions = Array.from({ length: 12 }, (_, i) => ({
      messages: [{ role: "user", content: `What is ${i + 11} + ${3 * i + 20}?` }],
      ...(i % 3 === 1 && { temperature: 0.7, seed: i }),
      ...(i % 4 === 2 && { repetition_penalty: 1.1 }),
      max_tokens: 20 + 3 * i,
    }));
    const alone: string[] = [];
    for (const one of questions) alone.push(await textOf(await server.post("/v1/chat/completions", one)));
    const together = await Promise.all(questions.map((one) => server.post("/v1/chat/completions", one).then(textOf)));
    expect(together).toEqual(alone);
  });

  test("handles and memory are as before when all is over", async () => {
    const server = start({ settings: { promptCacheSize: 0 } });
    const round = () =>
      Promise.all(
        Array.from({ length: 6 }, async (_, i) => {
          const controller = new AbortController();
          const request = server.post(
            "/v1/chat/completions",
            { ...endless, max_tokens: 30, stream: i % 2 === 0 },
            controller,
          );
          if (i % 3 === 0) setTimeout(() => controller.abort(), 20);
          await request.then((response) => response.text()).catch(() => {});
        }),
      );
    await round();
    const { scheduler } = server.context.models.loaded[0]!.served;
    await until(() => scheduler.running === 0);
    await Bun.sleep(20);
    const before = mx.liveHandles();
    for (let i = 0; i < 3; i++) await round();
    await until(() => scheduler.running === 0 && mx.liveHandles() <= before);
  });

  test("a full queue answers 429 with Retry-After", async () => {
    const server = start({ settings: { decodeConcurrency: 1, promptConcurrency: 1, maxQueue: 1 } });
    (await server.context.models.lease()).release();
    const controller = new AbortController();
    const first = await server.post("/v1/chat/completions", { ...endless, stream: true }, controller);
    const reader = first.body!.getReader();
    await reader.read();
    const { scheduler } = server.context.models.loaded[0]!.served;
    // The answer's first words come while it may still wait itself.
    while (scheduler.running < 1) await Bun.sleep(2);
    const second = server.post("/v1/chat/completions", { ...sum, max_tokens: 2 });
    while (scheduler.waiting < 1) await Bun.sleep(2);
    const third = await server.post("/v1/chat/completions", sum);
    expect(third.status).toBe(429);
    expect(Number(third.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    controller.abort();
    expect((await second).status).toBe(200);
  });
});

describe("one that fails", () => {
  test("fails alone: the others in the batch go on", async () => {
    const server = start();
    const { served, release } = await server.context.models.lease();
    const others = [1, 2].map(() => server.post("/v1/chat/completions", { ...sum, seed: 1 }).then(textOf));
    const { generate } = await import("./generation");
    const prompt = await served.tokenizer.encode("Once upon a time");
    let steps = 0;
    const limit = (_: mx.Tensor, logits: mx.Tensor) => {
      if (++steps === 5) throw new Error("this row is lost");
      return logits;
    };
    const parts: string[] = [];
    const request = { prompt, maxTokens: 50, sampling: {}, takesApart: false, limits: [limit] };
    const failing = (async () => {
      for await (const part of generate(served, request, { signal: new AbortController().signal }))
        parts.push(part.type);
    })();
    expect(await failing.catch((error) => error.message)).toBe("this row is lost");
    expect(steps).toBe(5);
    expect(await Promise.all(others)).toEqual(["", ""].map(() => expect.stringContaining("85.")));
    expect(served.scheduler.running).toBe(0);
    release();
  });

  test("a step that fails ends those in it, and the engine lives on", async () => {
    const server = start();
    const { served, release } = await server.context.models.lease();
    const forward = served.model.forward.bind(served.model);
    let fails = true;
    served.model.forward = (...args) => {
      if (fails) throw new Error("the device is gone");
      return forward(...args);
    };
    expect((await server.post("/v1/chat/completions", sum)).status).toBe(500);
    const streamed = await (await server.post("/v1/chat/completions", { ...sum, stream: true })).text();
    expect(streamed).toContain('"type":"server_error"');
    expect(streamed).not.toContain("the device is gone");
    expect(server.log.join()).toContain("the device is gone");
    fails = false;
    expect(await textOf(await server.post("/v1/chat/completions", sum))).toEndWith("85.");
    release();
  });
});

test("a failure that is known is logged with its next step, and without where it comes from", async () => {
  const open = () => {
    throw new UserError("the weights are damaged", { code: ExitCode.failure, hint: "Download them again." });
  };
  const server = start({ open });
  const response = await server.post("/v1/chat/completions", sum);
  expect(response.status).toBe(503);
  expect(await response.text()).not.toContain("Download");
  const line = server.log.find((line) => line.includes("ERROR"))!;
  expect(line).toEndWith("503 the model cannot be loaded: the weights are damaged. Download them again.");
});

describe("health", () => {
  test("tells of an engine that gives no sign of life", async () => {
    const server = start();
    const { served, release } = await server.context.models.lease();
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    const place = await served.scheduler.enter(1, 1);
    served.scheduler.heartbeat -= 1_000_000;
    const response = await fetch(`${server.url}/health`);
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({ status: "unavailable" });
    place.leave();
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    release();
  });

  test("figures are Prometheus's", async () => {
    const server = start();
    await server.post("/v1/chat/completions", sum);
    const text = await (await fetch(`${server.url}/metrics`)).text();
    for (const line of text.trim().split("\n"))
      expect(line).toMatch(/^(# (HELP|TYPE) \w+ .+|\w+(\{[^}]*\})? [\d.e+-]+)$/);
    expect(text).toContain('mlxlm_requests_total{route="/v1/chat/completions",status="200"} 1');
    expect(text).toMatch(/mlxlm_generated_tokens_total [1-9]/);
    expect(text).toContain("mlxlm_time_to_first_token_seconds_count 1");
  });
});

describe("waiting", () => {
  test("a stream that has nothing to say yet sends bytes", async () => {
    const server = start({ keepAliveInterval: 0.01, settings: { decodeConcurrency: 1, promptConcurrency: 1 } });
    const { served, release } = await server.context.models.lease();
    const place = await served.scheduler.enter(1, 1);
    const response = await server.post("/v1/chat/completions", { ...sum, stream: true });
    setTimeout(() => place.leave(), 60);
    const text = await response.text();
    expect(text).toContain(": keepalive 0/0\n\n");
    expect(text).toEndWith("data: [DONE]\n\n");
    release();
  });

  test("200 clients that only listen keep no one from an answer", async () => {
    const server = start({ settings: { decodeConcurrency: 2, promptConcurrency: 2 } });
    const { served, release } = await server.context.models.lease();
    const places = [await served.scheduler.enter(1, 1)];
    const controllers = Array.from({ length: 200 }, () => new AbortController());
    const streams = controllers.map((one) =>
      server.post("/v1/completions", { prompt: "a", stream: true, max_tokens: 1 }, one),
    );
    const responses = await Promise.all(streams);
    expect(responses.every(({ status }) => status === 200)).toBe(true);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    for (const place of places) place.leave();
    expect(await textOf(await server.post("/v1/chat/completions", sum))).toEndWith("85.");
    for (const one of controllers) one.abort();
    release();
  });
});

describe("the end", () => {
  test("waits for answers that run, and takes no more", async () => {
    const server = testServer();
    (await server.context.models.lease()).release();
    const running = await server.post("/v1/chat/completions", { ...sum, stream: true });
    const drained = server.drain(10);
    const refused = await server.post("/v1/chat/completions", sum).then(
      ({ status }) => status,
      () => "no connection",
    );
    expect([503, "no connection"]).toContain(refused);
    expect(await running.text()).toEndWith("data: [DONE]\n\n");
    await drained;
    expect(server.context.models.loaded).toEqual([]);
  });

  test("does not wait for ever", async () => {
    const server = testServer();
    (await server.context.models.lease()).release();
    const running = await server.post("/v1/chat/completions", { ...endless, stream: true });
    const began = performance.now();
    await server.drain(0.05);
    expect(performance.now() - began).toBeLessThan(3000);
    await running.text().catch(() => {});
  });
});

/** The page's files: sent as they are, and bound to this server. */
import { afterAll, expect, test } from "bun:test";
import { testServer } from "../../../test/serve";

const server = testServer({ guard: { apiKeys: ["secret"] } });
afterAll(() => server.stop());

test.each([
  ["/", "text/html", "<title>mlxlm</title>"],
  ["/page.css", "text/css", ":focus-visible"],
  ["/page.js", "text/javascript", "/v1/chat/completions"],
])("%s needs no key, and asks no other server", async (path, type, holds) => {
  const response = await fetch(server.url + path);
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toStartWith(type);
  expect(response.headers.get("content-security-policy")).toStartWith("default-src 'none'; script-src 'self'");
  const text = await response.text();
  expect(text).toContain(holds);
  expect(text).not.toMatch(/https?:\/\//);
});

test("every id that the script looks for is on the page", async () => {
  const [page, script] = await Promise.all(
    ["/", "/page.js"].map(async (path) => (await fetch(server.url + path)).text()),
  );
  const ids = [...script!.matchAll(/element\("(\w+)"\)/g)].map(([, id]) => id!);
  expect(ids.length).toBeGreaterThan(10);
  for (const id of ids) expect(page).toContain(`id="${id}"`);
});

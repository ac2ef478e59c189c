/**
 * The server's page in headless Chromium: chat, stop, settings, keyboard, and a narrow screen. No part of `bun test`:
 * Chromium is 65 MB.
 *
 *   npm install --no-save playwright-core @sparticuz/chromium
 *   bun test/browser/page.ts [FOLDER FOR PICTURES]
 */
import { expect } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { demoFolder } from "../../src/demo/folder";
import { openModel } from "../../src/generate/open-model";
import { copyWithoutEnd } from "../endless-model";
import { testServer } from "../serve";

/** What is used of playwright-core, which is not among the dependencies. */
interface Page {
  on(event: string, listener: (value: never) => void): void;
  goto(url: string): Promise<unknown>;
  waitForFunction(script: () => unknown): Promise<unknown>;
  evaluate<T>(script: () => T): Promise<T>;
  focus(selector: string): Promise<void>;
  click(selector: string): Promise<void>;
  fill(selector: string, text: string): Promise<void>;
  textContent(selector: string): Promise<string>;
  screenshot(options: { path: string }): Promise<unknown>;
  keyboard: { type(text: string): Promise<void>; press(key: string): Promise<void> };
}

/** Code that the page runs: as a function, since its policy lets no text be run. */
const inPage = <T>(code: string) => new Function(`return ${code}`) as () => T;

const [playwright, packed]: string[] = ["playwright-core", "@sparticuz/chromium"];
const { chromium: launcher } = await import(playwright!);
const { default: chromium } = await import(packed!);
const [pictures] = process.argv.slice(2);

async function check(url: string, width: number, height: number): Promise<void> {
  const browser = await launcher.launch({ executablePath: await chromium.executablePath(), args: chromium.args });
  const page: Page = await browser.newPage({
    viewport: { width, height },
    colorScheme: width < 500 ? "dark" : "light",
  });
  const problems: string[] = [];
  page.on("console", (message: { type(): string; text(): string }) => {
    if (message.type() === "error") problems.push(message.text());
  });
  page.on("pageerror", (error: Error) => problems.push(error.message));
  page.on("request", (request: { url(): string }) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) problems.push(`asks ${request.url()}`);
  });
  await page.goto(url);
  await page.waitForFunction(inPage("document.querySelector('#model').options.length > 0"));

  await page.focus("#text");
  await page.keyboard.type("What is 27 + 58?");
  await page.keyboard.press("Enter");
  await page.waitForFunction(inPage("/tokens.s/.test(document.querySelector('#status').textContent)"));
  expect(await page.textContent("article.assistant")).toEndWith("85.");
  expect(await page.textContent("#status")).toMatch(/^\d+ tokens · [\d.]+ tokens\/s · first after [\d.]+ s$/);

  const choose = (model: string) => page.evaluate(inPage(`document.querySelector('#model').value = '${model}'`));
  await choose("endless");
  await page.click("#toggle");
  await page.fill("#max_tokens", "100000");
  await page.fill("#temperature", "1.5");
  await page.keyboard.press("Alt+KeyS");
  await page.focus("#text");
  await page.keyboard.type("Tell me a story about a fox.");
  await page.keyboard.press("Enter");
  const second = "document.querySelectorAll('article.assistant')[1]";
  await page.waitForFunction(inPage(`${second}?.textContent.length > 20`));
  await page.keyboard.press("Escape");
  await page.waitForFunction(inPage("!document.querySelector('#send').hidden"));
  expect(await page.textContent("#status")).toBe("Stopped.");
  expect(await page.evaluate(inPage<string>("document.activeElement.id"))).toBe("text");

  expect(await page.evaluate(inPage<boolean>("document.documentElement.scrollWidth > innerWidth"))).toBe(false);
  if (pictures) await page.screenshot({ path: join(pictures, `page-${width}.png`) });
  await page.keyboard.press("Alt+KeyN");
  expect(await page.evaluate(inPage<number>("document.querySelectorAll('article').length"))).toBe(0);

  // A new chat while an answer is under way: nothing of it is left.
  await page.keyboard.type("Tell me a story about a bird.");
  await page.keyboard.press("Enter");
  await page.waitForFunction(inPage("document.querySelector('article.assistant')?.textContent.length > 20"));
  await page.keyboard.press("Alt+KeyN");
  await choose("demo");
  await page.keyboard.press("Alt+KeyS");
  await page.fill("#temperature", "0");
  await page.keyboard.press("Alt+KeyS");
  await page.focus("#text");
  await page.keyboard.type("What is 27 + 58?");
  await page.keyboard.press("Enter");
  await page.waitForFunction(inPage("/tokens.s/.test(document.querySelector('#status').textContent)"));
  expect(await page.evaluate(inPage<number>("document.querySelectorAll('article').length"))).toBe(2);
  expect(await page.textContent("article.assistant")).toEndWith("85.");
  expect(problems).toEqual([]);
  await browser.close();
}

const folder = mkdtempSync(join(tmpdir(), "mlxlm-page-"));
const endless = copyWithoutEnd(demoFolder(), join(folder, "endless"));
const server = testServer({
  models: {
    open: ({ open }) => openModel(open),
    main: { name: "demo", open: demoFolder() },
    allowed: [{ name: "endless", open: endless }],
  },
});
await check(server.url, 1100, 800);
await check(server.url, 360, 640);
await server.stop();
rmSync(folder, { recursive: true });
console.log("the page works at 1100 and 360 px");
process.exit(0);

/** GET /: a page to chat with. It asks this server and no other, and browsers are told so. */
import type { Hono } from "hono";
import script from "../page/client.js" with { type: "text" };
import style from "../page/page.css" with { type: "text" };
import page from "../page/page.html" with { type: "text" };

const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src data:",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join("; ");

const safe = {
  "content-security-policy": policy,
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cache-control": "no-cache",
};

/** The paths of its files: they are the same for everybody, and need no key. */
export const pagePaths = ["/", "/page.css", "/page.js"];

export function pageRoutes(app: Hono): void {
  const file = (path: string, text: string, type: string) =>
    app.get(path, (c) => c.body(text, 200, { ...safe, "content-type": `${type}; charset=utf-8` }));
  file("/", page as unknown as string, "text/html");
  file("/page.css", style, "text/css");
  file("/page.js", script, "text/javascript");
}

/** A hub on the loopback interface: enough of its API to download from, and every way in which it can fail. */
import { createHash } from "node:crypto";

const commit = "0123456789abcdef0123456789abcdef01234567";

export interface HubRepo {
  files: Record<string, string | Uint8Array>;
  /** Files kept as large ones, named by their SHA-256. */
  large?: string[];
  /** Answer every request for the repo with this status. */
  status?: number;
  /** Fail so many file requests with 500 first. */
  failures?: number;
  /** Send only half of a file, then hang up. */
  cut?: string;
  /** Send other bytes than were promised. */
  damaged?: string;
  /** What the hub calls the commit. */
  sha?: string;
  /** Answer requests for files as for a repo whose terms were not accepted. */
  gated?: boolean;
  /** Send large files in so many pieces, with a pause before each. */
  slowly?: number;
  /** Serve large files from here instead. */
  redirectTo?: string;
}

export interface SeenRequest {
  path: string;
  authorization: string | null;
}

export interface HubServer {
  url: string;
  seen: SeenRequest[];
  stop(): void;
}

const bytesOf = (content: string | Uint8Array) =>
  typeof content === "string" ? new TextEncoder().encode(content) : content;

export function startHub(repos: Record<string, HubRepo>): HubServer {
  const seen: SeenRequest[] = [];
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch(request) {
      const { pathname } = new URL(request.url);
      seen.push({ path: pathname, authorization: request.headers.get("Authorization") });
      const name = Object.keys(repos).find((repo) => pathname.includes(`/${repo}/`));
      const repo = name ? repos[name]! : undefined;
      if (!name || !repo) return json({ error: "Repository not found" }, 404);
      if (repo.status) return json({ error: `refused with ${repo.status}` }, repo.status);
      if (pathname.startsWith(`/api/models/${name}/revision/`))
        return json({ ...facts(name), ...(repo.sha ? { sha: repo.sha } : {}) });
      if (pathname.startsWith(`/api/models/${name}/tree/`)) return json(tree(repo));
      return file(request, repo, decodeURIComponent(pathname.split(`/${commit}/`)[1] ?? ""));
    },
  });
  return { url: `http://127.0.0.1:${server.port}`, seen, stop: () => void server.stop(true) };
}

const json = (value: object, status = 200) => Response.json(value, { status });

const facts = (name: string) => ({
  _id: "1",
  id: name,
  sha: commit,
  private: false,
  gated: false,
  downloads: 0,
  likes: 0,
  lastModified: "2026-01-01T00:00:00.000Z",
});

function tree(repo: HubRepo) {
  return Object.entries(repo.files).map(([path, content]) => {
    const bytes = bytesOf(content);
    const oid = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
    const lfs = { oid: createHash("sha256").update(bytes).digest("hex"), size: bytes.length, pointerSize: 130 };
    return { type: "file", path, size: bytes.length, oid, ...(repo.large?.includes(path) ? { lfs } : {}) };
  });
}

function inPieces(bytes: Uint8Array, pieces: number): ReadableStream {
  const size = Math.ceil(bytes.length / pieces);
  let at = 0;
  return new ReadableStream({
    async pull(controller) {
      if (at >= bytes.length) return controller.close();
      await Bun.sleep(100);
      controller.enqueue(bytes.slice(at, at + size));
      at += size;
    },
  });
}

function file(request: Request, repo: HubRepo, path: string): Response {
  if (repo.gated) return new Response("", { status: 401, headers: { "X-Error-Code": "GatedRepo" } });
  if (repo.failures) {
    repo.failures -= 1;
    return json({ error: "try again" }, 500);
  }
  const content = repo.files[path];
  if (content === undefined) return new Response("", { status: 404, headers: { "X-Error-Code": "EntryNotFound" } });
  if (repo.redirectTo && repo.large?.includes(path))
    return Response.redirect(`${repo.redirectTo}${new URL(request.url).pathname}`, 302);
  const bytes = bytesOf(content);
  const range = /bytes=(\d+)-(\d*)/.exec(request.headers.get("Range") ?? "");
  const probe = range?.[1] === "0" && range[2] === "0";
  const [from, to] = range ? [Number(range[1]), range[2] ? Number(range[2]) + 1 : bytes.length] : [0, bytes.length];
  const headers: Record<string, string> = { ETag: '"x"' };
  if (range) headers["Content-Range"] = `bytes ${from}-${to - 1}/${bytes.length}`;
  let body = bytes.slice(from, to);
  if (path === repo.damaged && !probe) body = body.map((byte) => byte ^ 1);
  if (path === repo.cut && !probe) body = body.slice(0, body.length / 2);
  if (repo.slowly && repo.large?.includes(path) && !probe) {
    return new Response(inPieces(body, repo.slowly), { status: range ? 206 : 200, headers });
  }
  return new Response(body, { status: range ? 206 : 200, headers });
}

/** A hub on the loopback interface: enough of its API to download from, and every way in which it can fail. */
import { createHash } from "node:crypto";
import { andNoMore, gitHash, startCutter, startXet } from "./hub-storage";
import { answerUpload, type HubUploads } from "./hub-uploads";

export const commit = "0123456789abcdef0123456789abcdef01234567";

export interface HubRepo {
  /** A dataset, whose commit is that of the branch with its Parquet files. */
  isDataset?: boolean;
  files: Record<string, string | Uint8Array>;
  /** Files kept as large ones, named by their SHA-256. */
  large?: string[];
  /** Answer every request for the repo with this status. */
  status?: number;
  /** Fail so many file requests with 500 first. */
  failures?: number;
  /** Ask so often to wait, with these headers. */
  busy?: { times: number; headers: Record<string, string> };
  /** Send only half of what is left of a large file, as if that were all, so many times. */
  cuts?: number;
  /** Send half of what is left of a large file, then drop the connection, so many times. */
  hangUps?: number;
  /** Send half of what is left of a large file, then nothing more, so many times. */
  stalls?: number;
  /** Send the beginning of the list of files, then nothing more. */
  stallsList?: boolean;
  /** Do not answer requests for large files at all, so many times. */
  silences?: number;
  /** Send a large file whole, whatever range is asked for. */
  ignoresRanges?: boolean;
  /** Refuse every range of a large file that does not begin at 0. */
  refusesRanges?: boolean;
  /** Send other bytes than were promised, so many times. */
  damages?: number;
  /** Send more than the size that was promised. */
  surplus?: boolean;
  /** Sizes to claim in place of the real ones. */
  claims?: Record<string, number>;
  /** What the hub calls the commit. */
  sha?: string;
  /** Answer requests for files as for a repo whose terms were not accepted. */
  gated?: boolean;
  /** Send large files in so many pieces, with a pause before each. */
  slowly?: number;
  /** How many are being sent so, and the most that were at a time. */
  sending?: { now: number; most: number };
  /** Serve large files from here instead. */
  redirectTo?: string;
  /** Keep large files in Xet storage. */
  xet?: boolean;
}

export interface SeenRequest {
  method: string;
  path: string;
  authorization: string | null;
  range: string | null;
  /** Milliseconds, of no known beginning. */
  at: number;
}

export interface HubServer {
  url: string;
  seen: SeenRequest[];
  stop(): void;
}

const bytesOf = (content: string | Uint8Array) =>
  typeof content === "string" ? new TextEncoder().encode(content) : content;

/** @param uploads takes what is uploaded; without it uploads are refused */
export function startHub(repos: Record<string, HubRepo>, uploads?: HubUploads): HubServer {
  const seen: SeenRequest[] = [];
  const files = new Map<string, Uint8Array>();
  for (const [name, repo] of Object.entries(repos)) {
    for (const [path, content] of Object.entries(repo.files)) files.set(`${name}/${path}`, bytesOf(content));
  }
  const cutter = startCutter(files);
  const xet = startXet(
    files,
    Object.values(repos).reduce((sum, repo) => sum + ((repo.xet && repo.stalls) || 0), 0),
  );
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    idleTimeout: 0,
    async fetch(request) {
      const { pathname, origin } = new URL(request.url);
      const authorization = request.headers.get("Authorization");
      const { method } = request;
      seen.push({ method, path: pathname, authorization, range: request.headers.get("Range"), at: performance.now() });
      const answer = uploads && (await answerUpload(request, uploads));
      if (answer) return answer;
      const name = Object.keys(repos).find((repo) => pathname.includes(`/${repo}/`));
      const repo = name ? repos[name]! : undefined;
      if (!name || !repo || /^\/(api\/)?datasets\//.test(pathname) !== (repo.isDataset ?? false))
        return json({ error: "Repository not found" }, 404, { "X-Error-Code": "RepoNotFound" });
      if (repo.status) return json({ error: `refused with ${repo.status}` }, repo.status);
      if (repo.busy && repo.busy.times-- > 0) return json({ error: "too many" }, 429, repo.busy.headers);
      const revision = decodeURIComponent(pathname.split("/revision/")[1] ?? commit);
      const branches = repo.isDataset ? ["refs/convert/parquet"] : ["main", "HEAD", "v1"];
      if (revision !== commit && !branches.includes(revision)) {
        return json({ error: `Invalid rev id: ${revision}` }, 404, { "X-Error-Code": "RevisionNotFound" });
      }
      const kind = /^\/api\/(?:models|datasets)\/.*\/(revision|tree)\//.exec(pathname)?.[1];
      if (kind === "revision") return json({ ...facts(name), ...(repo.sha ? { sha: repo.sha } : {}) });
      if (kind === "tree" && repo.stallsList)
        return new Response(andNoMore(bytesOf('[{"type": ')), { headers: listed });
      if (kind === "tree") return json(tree(repo));
      if (pathname.startsWith("/xet-token/")) return json(xet.token(authorization));
      const path = decodeURIComponent(pathname.split(`/${commit}/`)[1] ?? "");
      if (repo.xet && repo.large?.includes(path)) return xet.info(`${name}/${path}`, origin, request);
      return file(request, repo, path, name, cutter.url);
    },
  });
  const stop = () => {
    server.stop(true);
    cutter.stop();
    xet.stop();
  };
  return { url: `http://127.0.0.1:${server.port}`, seen, stop };
}

const listed = { "Content-Type": "application/json" };

const json = (value: object, status = 200, headers: Record<string, string> = {}) =>
  Response.json(value, { status, headers });

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
    const size = repo.claims?.[path] ?? bytes.length;
    const lfs = { oid: createHash("sha256").update(bytes).digest("hex"), size, pointerSize: 130 };
    return { type: "file", path, size, oid: gitHash(bytes), ...(repo.large?.includes(path) ? { lfs } : {}) };
  });
}

function inPieces(bytes: Uint8Array, pieces: number, sending = { now: 0, most: 0 }): ReadableStream {
  const size = Math.ceil(bytes.length / pieces);
  let at = 0;
  sending.most = Math.max(sending.most, ++sending.now);
  return new ReadableStream({
    async pull(controller) {
      if (at >= bytes.length) {
        sending.now--;
        return controller.close();
      }
      await Bun.sleep(100);
      controller.enqueue(bytes.slice(at, at + size));
      at += size;
    },
  });
}

function file(
  request: Request,
  repo: HubRepo,
  path: string,
  name: string,
  cutter: string,
): Response | Promise<Response> {
  if (repo.gated) return new Response("", { status: 401, headers: { "X-Error-Code": "GatedRepo" } });
  const range = /bytes=(\d+)-(\d*)/.exec(request.headers.get("Range") ?? "");
  const probe = range?.[1] === "0" && range[2] === "0";
  const spend = (fault: "failures" | "cuts" | "hangUps" | "stalls" | "silences" | "damages") => {
    if (probe || !repo[fault]) return false;
    repo[fault] -= 1;
    return true;
  };
  if (spend("failures")) return json({ error: "try again" }, 500);
  const content = repo.files[path];
  if (content === undefined) return new Response("", { status: 404, headers: { "X-Error-Code": "EntryNotFound" } });
  const isLarge = repo.large?.includes(path) ?? false;
  if (isLarge && repo.redirectTo) return Response.redirect(`${repo.redirectTo}${new URL(request.url).pathname}`, 302);
  if (isLarge && spend("silences")) return new Promise(() => {});
  if (isLarge && spend("hangUps")) return Response.redirect(`${cutter}/${name}/${path}`, 302);

  const bytes = bytesOf(content);
  const isRange = range && !(isLarge && repo.ignoresRanges && !probe);
  const [from, to] = isRange ? [Number(range[1]), range[2] ? Number(range[2]) + 1 : bytes.length] : [0, bytes.length];
  if (from > 0 && (from >= bytes.length || repo.refusesRanges)) {
    return new Response("", { status: 416, headers: { "Content-Range": `bytes */${bytes.length}` } });
  }
  const headers: Record<string, string> = { ETag: '"x"' };
  if (isRange) headers["Content-Range"] = `bytes ${from}-${to - 1}/${bytes.length}`;
  const status = isRange ? 206 : 200;
  let body = bytes.slice(from, to);
  const half = body.slice(0, body.length / 2);
  if (isLarge && spend("damages")) body = body.map((byte) => byte ^ 1);
  if (isLarge && spend("cuts")) body = half;
  if (isLarge && spend("stalls")) return new Response(andNoMore(half), { status, headers });
  if (isLarge && repo.surplus && !probe) body = new Uint8Array([...body, 1, 2, 3]);
  if (isLarge && repo.slowly && !probe)
    return new Response(inPieces(body, repo.slowly, repo.sending), { status, headers });
  return new Response(body, { status, headers });
}

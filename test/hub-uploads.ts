/** The hub's side of an upload: a repo is made, files are announced, large ones stored, all of them committed. */
import { createHash } from "node:crypto";
import type { XetStore } from "./hub-xet-store";

export interface HubUploads {
  /** Who owns this token; others are refused. */
  token: string;
  user: string;
  /** Files of each repo by name, as committed. */
  repos: Map<string, Map<string, Uint8Array>>;
  /** Large files that were stored, by SHA-256. */
  stored: Map<string, Uint8Array>;
  /** Larger files are stored in parts of so many bytes. */
  partBytes?: number;
  /** What the token may do. */
  role?: "read" | "write";
  /** Fail so many requests that store something with 503. */
  failures?: number;
  /** Take a second to store anything. */
  slowly?: boolean;
  /** Take large files by Xet, from those who can. */
  xet?: XetStore;
  /** Refuse to commit. */
  refusesCommits?: boolean;
  /** So many bytes are stored at most: more is refused, as where a quota ends. */
  quota?: number;
}

interface Batch {
  transfers: string[];
  objects: { oid: string; size: number }[];
}

/** null for what is no part of an upload. */
export async function answerUpload(request: Request, uploads: HubUploads): Promise<Response | null> {
  const { pathname, origin, searchParams } = new URL(request.url);
  const isOwner = request.headers.get("Authorization") === `Bearer ${uploads.token}`;
  const refused = () => Response.json({ error: "Invalid username or password." }, { status: 401 });
  if (pathname === "/api/whoami-v2") {
    return isOwner
      ? Response.json({
          type: "user",
          name: uploads.user,
          auth: {
            type: "access_token",
            accessToken: { displayName: "x", role: uploads.role ?? "write", createdAt: "2026-01-01" },
          },
        })
      : refused();
  }
  if (pathname === "/api/repos/create") {
    if (!isOwner) return refused();
    const { organization, name } = (await request.json()) as { organization: string; name: string };
    const repo = `${organization}/${name}`;
    if (organization !== uploads.user) return Response.json({ error: "no rights there" }, { status: 403 });
    if (uploads.repos.has(repo)) return Response.json({ error: "You already created this repo" }, { status: 409 });
    uploads.repos.set(repo, new Map());
    return Response.json({ url: `${origin}/${repo}`, id: "1" });
  }
  const taken = await uploads.xet?.answer(request);
  if (taken) return taken;
  if (pathname.startsWith("/store/")) return store(request, uploads, pathname.slice(7), searchParams.get("part"));
  const [, known] = /^\/api\/models\/([^/]+\/[^/]+)\/revision\/main$/.exec(pathname) ?? [];
  if (known) return Response.json({}, { status: isOwner && uploads.repos.has(known) ? 200 : 404 });
  const [, repo, kind] =
    /^\/api\/models\/([^/]+\/[^/]+)\/(preupload|commit)\/main$/.exec(pathname) ??
    /^\/([^/]+\/[^/]+)\.git\/info\/(lfs)\/objects\/batch$/.exec(pathname) ??
    [];
  if (!repo || !kind) return null;
  if (!isOwner) return refused();
  const files = uploads.repos.get(repo);
  if (!files) return Response.json({ error: "Repository not found" }, { status: 404 });
  if (kind === "preupload") {
    const { files: announced } = (await request.json()) as { files: { path: string }[] };
    const mode = (path: string) => (/\.(safetensors|bin)$/.test(path) ? "lfs" : "regular");
    return Response.json({ files: announced.map(({ path }) => ({ path, uploadMode: mode(path) })) });
  }
  if (kind === "lfs") return batch((await request.json()) as Batch, uploads, origin);
  if (uploads.refusesCommits) return Response.json({ error: "the branch is protected" }, { status: 403 });
  return takeCommit(await request.text(), files, uploads);
}

function batch({ objects, transfers }: Batch, uploads: HubUploads, origin: string): Response {
  const { xet } = uploads;
  if (xet && transfers.includes("xet")) {
    const wanted = ({ oid }: { oid: string }) => (uploads.stored.has(oid) ? {} : { actions: xet.actions(origin) });
    return Response.json({ transfer: "xet", objects: objects.map((one) => ({ ...one, ...wanted(one) })) });
  }
  const { partBytes = Number.POSITIVE_INFINITY, quota = Number.POSITIVE_INFINITY } = uploads;
  return Response.json({
    transfer: "basic",
    objects: objects.map(({ oid, size }) => {
      if (uploads.stored.has(oid)) return { oid, size };
      if (size > quota) return { oid, size, error: { code: 403, message: "the storage limit is reached" } };
      const href = `${origin}/store/${oid}`;
      if (size <= partBytes) return { oid, size, actions: { upload: { href } } };
      const count = Math.ceil(size / partBytes);
      const parts = Array.from({ length: count }, (_, i) => [String(i + 1).padStart(5, "0"), `${href}?part=${i + 1}`]);
      return {
        oid,
        size,
        actions: { upload: { href, header: { chunk_size: `${partBytes}`, ...Object.fromEntries(parts) } } },
      };
    }),
  });
}

const pieces = new Map<string, Uint8Array>();

async function store(request: Request, uploads: HubUploads, oid: string, part: string | null): Promise<Response> {
  if (request.headers.has("Authorization")) return new Response("signed addresses take no token", { status: 400 });
  if (uploads.slowly) await Bun.sleep(1000);
  if (uploads.failures) {
    uploads.failures -= 1;
    return new Response("", { status: 503 });
  }
  if (request.method === "POST") {
    const { parts } = (await request.json()) as { parts: { partNumber: number; etag: string }[] };
    const all = parts.map(({ partNumber, etag }) =>
      etag === `"${partNumber}"` ? pieces.get(`${oid}/${partNumber}`)! : [],
    );
    return keep(uploads, oid, Buffer.concat(all.map((piece) => Buffer.from(piece))));
  }
  const bytes = new Uint8Array(await request.arrayBuffer());
  if (part === null) return keep(uploads, oid, bytes);
  pieces.set(`${oid}/${part}`, bytes);
  return new Response("", { headers: { ETag: `"${part}"` } });
}

function keep(uploads: HubUploads, oid: string, bytes: Uint8Array): Response {
  if (createHash("sha256").update(bytes).digest("hex") !== oid) return new Response("wrong hash", { status: 400 });
  uploads.stored.set(oid, bytes);
  return new Response("");
}

function takeCommit(text: string, files: Map<string, Uint8Array>, { stored }: HubUploads): Response {
  const [header, ...lines] = text.split("\n").map((line) => JSON.parse(line));
  if (header.key !== "header" || !header.value.summary) return Response.json({ error: "no summary" }, { status: 400 });
  for (const { key, value } of lines) {
    const bytes = key === "file" ? Buffer.from(value.content, value.encoding) : stored.get(value.oid);
    if (!bytes) return Response.json({ error: `${value.path} was not stored` }, { status: 400 });
    files.set(value.path, bytes);
  }
  return Response.json({ success: true, commitOid: "1".repeat(40), commitUrl: "", hookOutput: "" });
}

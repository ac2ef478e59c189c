/** Where a loopback hub takes Xet uploads: xorbs of chunks, and shards that say which chunks make up a file. */
import { createHash } from "node:crypto";

const storageToken = "xet-storage-token";
const hashBytes = 32;
const headerBytes = 48;

export interface XetStore {
  /** What an upload is told to use. */
  actions(origin: string): { upload: { href: string; header: Record<string, string> } };
  /** null for what is no request to it. */
  answer(request: Request): Promise<Response | null>;
  /** Bytes of the chunks that came. */
  readonly received: number;
}

/** @param keep is given each file that can be put together */
export function xetStore(keep: (oid: string, bytes: Uint8Array) => void): XetStore {
  const xorbs = new Map<string, Uint8Array[]>();
  let received = 0;
  return {
    get received() {
      return received;
    },
    actions: (origin) => ({
      upload: {
        href: `${origin}/xet/token`,
        header: {
          "X-Xet-Cas-Url": `${origin}/xet`,
          "X-Xet-Access-Token": storageToken,
          "X-Xet-Token-Expiration": `${Math.floor(Date.now() / 1000) + 3600}`,
        },
      },
    }),
    async answer(request) {
      const { pathname } = new URL(request.url);
      if (!pathname.startsWith("/xet/")) return null;
      if (request.headers.get("Authorization") !== `Bearer ${storageToken}`) return new Response("", { status: 401 });
      const bytes = new Uint8Array(await request.arrayBuffer());
      const [, hash] = /\/v1\/xorbs\/default\/([0-9a-f]+)$/.exec(pathname) ?? [];
      if (hash) {
        received += bytes.length;
        xorbs.set(hash, chunksOf(bytes));
        return Response.json({ was_inserted: true });
      }
      if (!pathname.endsWith("/v1/shards")) return new Response("", { status: 404 });
      for (const file of filesOf(bytes, xorbs)) keep(createHash("sha256").update(file).digest("hex"), file);
      return Response.json({ result: 1 });
    },
  };
}

/** Chunks have a header of 8 bytes: version, packed size, how they are packed, size. Random bytes are not packed. */
function chunksOf(xorb: Uint8Array): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  const size = (at: number) => xorb[at]! | (xorb[at + 1]! << 8) | (xorb[at + 2]! << 16);
  for (let at = 0; at + 8 <= xorb.length; ) {
    if (xorb[at + 4] !== 0) throw new Error("a packed chunk: upload random bytes");
    chunks.push(xorb.slice(at + 8, at + 8 + size(at + 1)));
    at += 8 + size(at + 1);
  }
  return chunks;
}

/** The files that a shard tells of. */
function filesOf(shard: Uint8Array, xorbs: ReadonlyMap<string, Uint8Array[]>): Uint8Array[] {
  const view = new DataView(shard.buffer, shard.byteOffset);
  const files: Uint8Array[] = [];
  for (let at = headerBytes; shard[at] !== 0xff; ) {
    const flags = view.getUint32(at + hashBytes, true);
    const count = view.getUint32(at + hashBytes + 4, true);
    at += headerBytes;
    const parts: Uint8Array[] = [];
    for (let i = 0; i < count; i++, at += headerBytes) {
      const chunks = xorbs.get(hashAt(shard, at)) ?? [];
      parts.push(...chunks.slice(view.getUint32(at + hashBytes + 8, true), view.getUint32(at + hashBytes + 12, true)));
    }
    // Hashes of each range, and the file's SHA-256.
    at += count * headerBytes + (flags & 0x40000000 ? headerBytes : 0);
    files.push(Buffer.concat(parts));
  }
  return files;
}

/** Hashes are written as four numbers of 8 bytes, the lowest first. */
function hashAt(bytes: Uint8Array, at: number): string {
  const words = Array.from({ length: 4 }, (_, i) => bytes.slice(at + i * 8, at + i * 8 + 8).reverse());
  return words.map((word) => Buffer.from(word).toString("hex")).join("");
}

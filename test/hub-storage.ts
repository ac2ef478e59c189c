/** Where a loopback hub keeps large files: one host that drops connections, and one that speaks Xet. */
import { createHash } from "node:crypto";

/** What git calls a file of this content. */
export function gitHash(bytes: Uint8Array): string {
  return createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}

/** Sends half of what is asked for, then drops the connection: no server of HTTP would. */
export function startCutter(files: ReadonlyMap<string, Uint8Array>): { url: string; stop(): void } {
  const server = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data(socket, data) {
        const request = data.toString();
        const bytes = files.get(/^GET \/(\S+)/.exec(request)?.[1] ?? "")!;
        const from = Number(/^range: bytes=(\d+)-/im.exec(request)?.[1] ?? 0);
        const rest = bytes.slice(from);
        const status = from > 0 ? "206 Partial Content" : "200 OK";
        const range = `Content-Range: bytes ${from}-${bytes.length - 1}/${bytes.length}`;
        socket.write(`HTTP/1.1 ${status}\r\nContent-Length: ${rest.length}\r\n${range}\r\n\r\n`);
        socket.write(rest.slice(0, rest.length / 2));
        socket.flush();
        setTimeout(() => socket.terminate(), 20);
      },
    },
  });
  return { url: `http://127.0.0.1:${server.port}`, stop: () => server.stop(true) };
}

const storageToken = "storage-token";
const chunkBytes = 64 * 1024;

/** The bytes, and then silence. */
export function andNoMore(bytes: Uint8Array): ReadableStream {
  return new ReadableStream({
    start: (controller) => controller.enqueue(bytes),
    pull: () => new Promise(() => {}),
  });
}

/**
 * Xet's storage of one file each in one xorb: chunks of a header of 8 bytes and the content, uncompressed.
 * @param stalls so many times half of what is asked for is sent, and then nothing
 */
export function startXet(files: ReadonlyMap<string, Uint8Array>, stalls: number) {
  let left = stalls;
  const names = [...files.keys()];
  const xorb = (bytes: Uint8Array) => {
    const parts: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; at += chunkBytes) {
      const chunk = bytes.slice(at, at + chunkBytes);
      const length = [chunk.length & 255, (chunk.length >> 8) & 255, chunk.length >> 16];
      parts.push(new Uint8Array([0, ...length, 0, ...length]), chunk);
    }
    return Buffer.concat(parts);
  };
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch(request): Response {
      const { pathname, origin } = new URL(request.url);
      const index = Number(pathname.split("/").at(-1));
      const bytes = files.get(names[index]!)!;
      const range = /bytes=(\d+)-(\d+)/.exec(request.headers.get("Range") ?? "")!;
      if (pathname.startsWith("/xorb/")) {
        const body = xorb(bytes).subarray(Number(range[1]), Number(range[2]) + 1);
        if (left-- > 0) return new Response(andNoMore(body.subarray(0, body.length / 2)), { status: 206 });
        return new Response(body, { status: 206 });
      }
      if (request.headers.get("Authorization") !== `Bearer ${storageToken}`) return new Response("", { status: 401 });
      const first = Math.floor(Number(range[1]) / chunkBytes);
      const end = Math.floor(Number(range[2]) / chunkBytes) + 1;
      const at = (chunk: number) => Math.min(chunk * (chunkBytes + 8), xorb(bytes).length);
      const chunks = { start: first, end };
      const url = `${origin}/xorb/${index}`;
      return Response.json({
        terms: [
          { hash: "a", range: chunks, unpacked_length: Math.min(end * chunkBytes, bytes.length) - first * chunkBytes },
        ],
        xorbs: { a: [{ url, ranges: [{ chunks, bytes: { start: at(first), end: at(end) - 1 } }] }] },
        offset_into_first_range: Number(range[1]) - first * chunkBytes,
      });
    },
  });
  const url = `http://127.0.0.1:${server.port}`;
  return {
    stop: () => void server.stop(true),
    /** What the hub answers to who asks for access to the storage. */
    token: (authorization: string | null) => ({
      accessToken: authorization === "Bearer hf_secret" ? storageToken : "none",
      casUrl: url,
      exp: Date.now() / 1000 + 3600,
    }),
    /** What the hub answers to who asks where a file is. */
    info(name: string, hub: string, request: Request): Response {
      const bytes = files.get(name)!;
      if (!request.headers.get("Accept")?.includes("xet-fileinfo")) return new Response(bytes);
      const link = `<${hub}/xet-token/${name}/>; rel="xet-auth", <${url}/v1/reconstructions/${names.indexOf(name)}>; rel="xet-reconstruction-info"`;
      return Response.json(
        {},
        {
          headers: {
            "Content-Type": "application/vnd.xet-fileinfo+json",
            "X-Linked-Size": `${bytes.length}`,
            "X-Xet-Hash": "a",
            ETag: '"x"',
            Link: link,
          },
        },
      );
    },
  };
}

/** Below those that systems give to whoever asks for any, so that nobody is given one of these before a rank takes it. */
const [lowest, highest] = [20_000, 32_000];

/** Ports of this machine that nobody listens at. */
export function freePorts(count: number): number[] {
  const servers: Bun.TCPSocketListener[] = [];
  try {
    while (servers.length < count) servers.push(listener());
    return servers.map(({ port }) => port);
  } finally {
    for (const server of servers) server.stop(true);
  }
}

function listener(): Bun.TCPSocketListener {
  for (let attempt = 0; attempt < 100; attempt++) {
    const server = listenAt(lowest + Math.floor(Math.random() * (highest - lowest)));
    if (server) return server;
  }
  // Something takes nearly all of these.
  return listen(0);
}

const listen = (port: number) => Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } });

/** Null where somebody listens there already. */
export function listenAt(port: number): Bun.TCPSocketListener | null {
  try {
    return listen(port);
  } catch {
    return null;
  }
}

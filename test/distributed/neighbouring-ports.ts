import { freePorts, listenAt } from "../../src/cli/launch/ports";

function isFree(port: number): boolean {
  const server = listenAt(port);
  server?.stop(true);
  return server !== null;
}

/** The first of so many ports in a row that nobody listens at. */
export function neighbouringPorts(count: number): number {
  while (true) {
    const [first] = freePorts(1) as [number];
    if (Array.from({ length: count }, (_, i) => first + i).every((port) => port < 65536 && isFree(port))) return first;
  }
}

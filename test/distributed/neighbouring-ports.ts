import { freePorts } from "../../src/cli/launch/ports";

const isFree = (port: number) => {
  try {
    Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } }).stop(true);
    return true;
  } catch {
    return false;
  }
};

/** The first of so many ports in a row that nobody listens at. */
export function neighbouringPorts(count: number): number {
  while (true) {
    const [first] = freePorts(1) as [number];
    if (Array.from({ length: count }, (_, i) => first + i).every((port) => port < 65536 && isFree(port))) return first;
  }
}

/**
 * What a signal does while native code computes. JavaScript's handlers wait for the end of a step, which may take a
 * minute; what the kernel does for a signal does not.
 */
import { dlopen, ptr } from "bun:ffi";
import { constants } from "node:os";

type Signal = "SIGINT" | "SIGTERM";

const isMac = process.platform === "darwin";

/** In `struct sigaction`: where its flags are, and the flag by which a handler is used once. */
const { flagsAt, resetHand } = isMac
  ? { flagsAt: 12, resetHand: 0x4 } // handler (8 bytes), mask (4), flags
  : { flagsAt: 136, resetHand: 0x8000_0000 }; // handler (8 bytes), mask (128), flags

/** Longer than the struct on any system. */
const structBytes = 256;

let sigaction: ((signal: number, action: unknown, previous: unknown) => number) | null = null;

function libc() {
  sigaction ??= dlopen(isMac ? "libSystem.B.dylib" : "libc.so.6", {
    sigaction: { args: ["i32", "ptr", "ptr"], returns: "i32" },
  }).symbols.sigaction as NonNullable<typeof sigaction>;
  return sigaction;
}

/**
 * The next such signal goes to the handler that there is, and the one after it ends the process at once, whatever the
 * process does. To be called again where it should not. Nothing where the system does not take it.
 */
export function endOnSecond(signal: Signal): void {
  const number = constants.signals[signal];
  const action = new Uint8Array(new ArrayBuffer(structBytes));
  if (libc()(number, null, ptr(action)) !== 0) return;
  const flags = new DataView(action.buffer);
  flags.setUint32(flagsAt, (flags.getUint32(flagsAt, true) | resetHand) >>> 0, true);
  libc()(number, ptr(action), null);
}

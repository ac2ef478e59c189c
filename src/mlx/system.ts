/**
 * Calls of the system that Bun has no function for: what a signal or a parent's end does while native code computes, and
 * a terminal that echoes nothing but is not raw.
 */
import { dlopen, ptr } from "bun:ffi";
import { constants } from "node:os";
import { nativeLibrary } from "./native-files";

type Signal = "SIGINT" | "SIGTERM";

const isMac = process.platform === "darwin";

/** In `struct sigaction`: where its flags are, and the flag by which a handler is used once. */
const { flagsAt, resetHand } = isMac
  ? { flagsAt: 12, resetHand: 0x4 } // handler (8 bytes), mask (4), flags
  : { flagsAt: 136, resetHand: 0x8000_0000 }; // handler (8 bytes), mask (128), flags

/** Longer than the struct on any system. */
const structBytes = 256;

interface Calls {
  sigaction(signal: number, action: unknown, previous: unknown): number;
  tcgetattr(descriptor: number, modes: unknown): number;
  tcsetattr(descriptor: number, when: number, modes: unknown): number;
}

let calls: Calls | null = null;

function libc(): Calls {
  calls ??= dlopen(isMac ? "libSystem.B.dylib" : "libc.so.6", {
    sigaction: { args: ["i32", "ptr", "ptr"], returns: "i32" },
    tcgetattr: { args: ["i32", "ptr"], returns: "i32" },
    tcsetattr: { args: ["i32", "i32", "ptr"], returns: "i32" },
  }).symbols as unknown as Calls;
  return calls;
}

/** What handles a signal, before it was used once. */
const handlers = new Map<Signal, Uint8Array<ArrayBuffer>>();

/** The `struct sigaction` of the handler that there is, or was before a signal took it away; null where there is none. */
function handlerOf(signal: Signal): Uint8Array<ArrayBuffer> | null {
  const known = handlers.get(signal);
  if (known) return known;
  const action = new Uint8Array(new ArrayBuffer(structBytes));
  if (libc().sigaction(constants.signals[signal], null, ptr(action)) !== 0) return null;
  // The address is ahead of all else in the struct.
  if (action.subarray(0, 8).every((byte) => byte === 0)) return null;
  handlers.set(signal, action);
  return action;
}

/**
 * The next such signal goes to the handler that there is, and the one after it ends the process at once, whatever the
 * process does. To be called again, in the handler, where it should not. Nothing where the system does not take it.
 */
export function endOnSecond(signal: Signal): void {
  const action = handlerOf(signal);
  if (!action) return;
  const flags = new DataView(action.buffer);
  flags.setUint32(flagsAt, (flags.getUint32(flagsAt, true) | resetHand) >>> 0, true);
  libc().sigaction(constants.signals[signal], ptr(action), null);
}

/**
 * The next SIGINT writes the text to stderr at once, in the middle of native code too, and then goes to the handler that
 * there is; the one after it ends the process, as with `endOnSecond`.
 */
export function announceInterrupt(text: string): void {
  handlerOf("SIGINT");
  const { symbols } = dlopen(nativeLibrary(), { mlxlm_announce_interrupt: { args: ["ptr"], returns: "i32" } });
  symbols.mlxlm_announce_interrupt(ptr(new TextEncoder().encode(`${text}\0`)));
}

/** Ends this process so many seconds after its parent has ended, in the middle of native code too. */
export function endWithParent(seconds: number): void {
  const { symbols } = dlopen(nativeLibrary(), { mlxlm_end_with_parent: { args: ["i32"], returns: "void" } });
  symbols.mlxlm_end_with_parent(seconds);
}

/** In `struct termios`: where the local modes are; those for echoed keys, for whole lines, and for what Ctrl-C keeps. */
const { localAt, echo, wholeLines, noFlush } = isMac
  ? { localAt: 24, echo: 0x8, wholeLines: 0x100, noFlush: 0x8000_0000 } // behind three modes of 8 bytes
  : { localAt: 12, echo: 0x8, wholeLines: 0x2, noFlush: 0x80 }; // behind three modes of 4 bytes

/** Changes take effect at once; what was typed before stays. */
const now = 0;

/**
 * Has a terminal show no keys and keep them as they are typed, for a program that reads them later. Ctrl-C and Ctrl-Z are
 * signals as ever; they lose neither keys nor what is being printed.
 * @returns the function that puts its modes back; it does nothing for what is no terminal
 */
export function hideKeys(descriptor: number): () => void {
  const before = new Uint8Array(new ArrayBuffer(structBytes));
  if (libc().tcgetattr(descriptor, ptr(before)) !== 0) return () => {};
  const modes = new Uint8Array(new ArrayBuffer(structBytes));
  modes.set(before);
  const view = new DataView(modes.buffer);
  view.setUint32(localAt, ((view.getUint32(localAt, true) & ~(echo | wholeLines)) | noFlush) >>> 0, true);
  libc().tcsetattr(descriptor, now, ptr(modes));
  return () => void libc().tcsetattr(descriptor, now, ptr(before));
}

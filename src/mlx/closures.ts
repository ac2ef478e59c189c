/**
 * JavaScript functions that MLX calls: one synchronous callback for all of them, by id. Everything a function makes is
 * freed when it returns, but what it returns or keeps; what it throws is rethrown after the native call.
 */
import { JSCallback } from "bun:ffi";
import { native } from "./library";
import { beginMail, mail, readInts, writeInts } from "./mailbox";
import type { Handle } from "./native";
import { inNativeScope } from "./open-scopes";
import { storeThrow } from "./pending-throw";

/** A function of lists of tensors, given and returning handles. */
export type HandleFunction = (...lists: Handle[][]) => Handle[];

const functions = new Map<number, HandleFunction>();
let nextId = 0;

function enter(id: number, listCount: number): number {
  try {
    const fn = functions.get(id);
    if (!fn) throw new Error(`MLX called function ${id}, which is gone`);
    let at = listCount;
    const lists = readInts(listCount).map((length) => {
      const list = Array.from(mail.subarray(at, at + length));
      at += length;
      return list;
    });
    const results = inNativeScope(() => fn(...lists));
    beginMail();
    return writeInts(results);
  } catch (error) {
    storeThrow(error);
    return -1;
  }
}

let trampoline: JSCallback | null = null;

/** Makes `fn` callable from MLX and returns its id. MLX says when it needs it no more; the entry goes then. */
export function register(fn: HandleFunction): number {
  if (!trampoline) {
    trampoline = new JSCallback(enter, { args: ["i32", "i32"], returns: "i32" });
    native.mlxlm_attach_trampoline(trampoline.ptr);
  }
  forgetDropped();
  nextId = (nextId + 1) & 0x3fffffff;
  functions.set(nextId, fn);
  return nextId;
}

function forgetDropped(): void {
  const count = native.mlxlm_dropped_functions();
  for (const id of readInts(count)) functions.delete(id);
}

/** How many JavaScript functions MLX may still call: a number that must not grow with work done. */
export function liveFunctions(): number {
  forgetDropped();
  return functions.size;
}

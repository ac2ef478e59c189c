/** Requests to the hub: tried again where that helps, and the token only to the hub itself. */
import { setTimeout as sleep } from "node:timers/promises";
import { HUB_URL, HubApiError } from "@huggingface/hub";
import { ExitCode, UserError } from "../errors";
import { AnswerLimits, LimitError, type Purpose, unpacked } from "./answer-limits";
import { accessToken, hubEndpoint, patience } from "./environment";

export const attempts = 4;

/** Milliseconds before the n-th new attempt, where the server names none. */
export const pause = (attempt: number) => 200 * 2 ** attempt;

/** Milliseconds for the answer to what was uploaded: a large commit keeps the hub busy for minutes. */
const uploadPatience = 10 * 60_000;

/** Bytes in a millisecond. An upload says nothing until all of it is there; slower than this counts as stalled. */
const slowestUpload = 20;

/** Seconds that a server may ask to wait before the user is told instead. */
const longestWait = 60;

/** Seconds of a wait from which on the user is told. */
const toldWait = 5;

const retriable = (status: number) => status === 429 || status >= 500;

/** The hub's address. */
export function hubUrl(): string {
  return hubEndpoint() ?? HUB_URL;
}

/**
 * Stands for the user's token, where there is one, until a request leaves: it is sent to the hub only. And the client
 * takes no tokens but those of one form, which other hubs need not have.
 */
export const ownToken = "hf_own";

/** @throws UserError for what cannot be sent */
function checkedToken(): string | undefined {
  const token = accessToken();
  if (token === undefined || /^[\x21-\x7e]+$/.test(token)) return token;
  throw new UserError("the token of the hub has characters that no token has", {
    code: ExitCode.auth,
    hint: "Check HF_TOKEN, or the file that a login wrote.",
  });
}

/** A word of the hub's about a repo that its status alone does not say: GatedRepo, RevisionNotFound. */
export class RefusedError extends Error {
  constructor(readonly reason: string) {
    super(reason);
  }
}

const refusals = ["GatedRepo", "RevisionNotFound"];

/** The hub is asked too often, and wants to be left alone for longer than a user may care to wait. */
export class BusyError extends Error {
  constructor(
    readonly seconds: number,
    readonly status: number,
  ) {
    super(`asked to wait ${seconds} s`);
  }
}

/** A connection that is not answered, or from which nothing more comes. */
export class StalledError extends Error {
  constructor(milliseconds: number) {
    super(`nothing came for ${milliseconds / 1000} s`);
  }
}

/** Attempts were made, and none reached the server. */
class UnreachableError extends Error {}

/** Whether an error of a transfer may pass: not what the hub or the disk says, but a connection that ended. */
export function isPassing(error: unknown): boolean {
  const final = [UserError, HubApiError, RefusedError, BusyError, UnreachableError, LimitError];
  return !final.some((type) => error instanceof type) && (error as NodeJS.ErrnoException)?.syscall === undefined;
}

export interface HubOptions {
  /** Ends the request, and the reading of its answer. */
  signal?: AbortSignal;
  /** Told where the hub asks to wait, and it takes a while. */
  onWait?: (line: string) => void;
}

/** `fetch`, for @huggingface/hub and beside it. Reading the answer fails where nothing more comes, or it does not end. */
export async function hubFetch(
  input: string | URL | Request,
  init: RequestInit = {},
  { signal, onWait }: HubOptions = {},
  limits = new AnswerLimits("answer"),
): Promise<Response> {
  const url = new URL(input instanceof Request ? input.url : input);
  const headers = new Headers(init.headers);
  // Compressed on the way, a file's byte offsets would mean nothing, and few bytes could become many.
  headers.set("Accept-Encoding", "identity");
  limits.request();
  if (headers.get("Authorization") === `Bearer ${ownToken}`) {
    // A file may lie on another host, whose address is signed or has a token of its own: ours is not for it.
    const token = url.origin === new URL(hubUrl()).origin ? checkedToken() : undefined;
    if (token) headers.set("Authorization", `Bearer ${token}`);
    else headers.delete("Authorization");
  }
  const stops = [signal, init.signal].filter((one) => one instanceof AbortSignal);
  const limit = (init.method ?? "GET") === "GET" ? patience() : uploadPatience + sizeOf(init.body) / slowestUpload;
  for (let attempt = 0; ; attempt++) {
    const last = attempt === attempts - 1;
    let wait = pause(attempt);
    try {
      const response = await answered(url, { ...init, headers }, stops, limit);
      const code = response.headers.get("X-Error-Code");
      if (code && refusals.includes(code)) throw new RefusedError(code);
      if (!retriable(response.status)) return watched(response, patience(), limits);
      const asked = askedWait(response.headers);
      if (asked !== null && asked > longestWait) throw new BusyError(asked, response.status);
      if (last) return watched(response, patience(), limits);
      await response.body?.cancel();
      if (asked !== null) wait = asked * 1000;
      if (wait >= toldWait * 1000) tellWait(wait / 1000, onWait);
    } catch (error) {
      if (stops.some(({ aborted }) => aborted) || !isPassing(error)) throw error;
      if (last) throw new UnreachableError(error instanceof Error ? error.message : String(error), { cause: error });
    }
    await sleep(wait, undefined, { signal: stops.length > 0 ? AbortSignal.any(stops) : undefined });
  }
}

/** One attempt, given up after `limit` milliseconds without the head of an answer. */
async function answered(url: URL, init: RequestInit, stops: AbortSignal[], limit: number): Promise<Response> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new StalledError(limit)), limit);
  try {
    // Bun's own limit would end a slow upload, and the wait for a large commit, after five minutes.
    return await fetch(url, {
      ...init,
      timeout: false,
      decompress: false,
      signal: AbortSignal.any([...stops, late.signal]),
    });
  } catch (error) {
    throw late.signal.aborted ? late.signal.reason : error;
  } finally {
    clearTimeout(timer);
  }
}

/** When the last wait ends that was told: requests that run side by side are asked alike. */
let toldUntil = 0;

function tellWait(seconds: number, onWait: HubOptions["onWait"]): void {
  const now = performance.now();
  if (now < toldUntil) return;
  toldUntil = now + seconds * 1000;
  onWait?.(`the hub asks to wait ${seconds} s`);
}

/**
 * The same answer, unpacked, whose reading fails where nothing comes for so long, or it grows beyond the limits. Time in
 * which nobody reads does not count.
 */
function watched(response: Response, limit: number, limits: AnswerLimits): Response {
  const { body, status, statusText, url, ok } = response;
  if (!body) return response;
  const headers = new Headers(response.headers);
  const reader = unpacked(body, headers.get("Content-Encoding")).getReader();
  if (headers.has("Content-Encoding")) for (const name of ["Content-Encoding", "Content-Length"]) headers.delete(name);
  const counter = limits.counter(ok);
  const watcher = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const began = performance.now();
        const { done, value } = await within(limit, reader.read());
        try {
          counter.take(value?.length ?? 0, performance.now() - began);
        } catch (error) {
          reader.cancel().catch(() => {});
          throw error;
        }
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: (reason) => reader.cancel(reason),
    },
    { highWaterMark: 0 },
  );
  const answer = new Response(watcher, { status, statusText, headers });
  return Object.defineProperty(answer, "url", { value: url });
}

/** @throws StalledError where the promise is not settled in so many milliseconds */
async function within<T>(limit: number, promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const end = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new StalledError(limit)), limit);
  });
  return Promise.race([promise, end]).finally(() => clearTimeout(timer));
}

function sizeOf(body: RequestInit["body"]): number {
  if (typeof body === "string") return body.length;
  if (body instanceof Blob) return body.size;
  return ArrayBuffer.isView(body) ? body.byteLength : 0;
}

/** Seconds that a server asks to wait: Retry-After as a number or a date, else the rest of the hub's own time window. */
function askedWait(headers: Headers): number | null {
  const after = headers.get("Retry-After");
  if (after !== null) {
    const seconds = /^\d+$/.test(after.trim()) ? Number(after) : (Date.parse(after) - Date.now()) / 1000;
    return Number.isFinite(seconds) ? Math.max(0, Math.ceil(seconds)) : null;
  }
  const rest = /;\s*t=(\d+)/.exec(headers.get("RateLimit") ?? "");
  return rest ? Number(rest[1]) : null;
}

/** What goes with a call of @huggingface/hub: its requests belong together. */
export function hubParameters(options: HubOptions = {}, purpose: Purpose = "answer") {
  const limits = new AnswerLimits(purpose);
  const bound = (input: string | URL | Request, init?: RequestInit) => hubFetch(input, init, options, limits);
  return { hubUrl: hubEndpoint(), accessToken: ownToken, fetch: bound as typeof fetch };
}

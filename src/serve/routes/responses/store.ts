/** Responses that may be gone on with, or read again: in memory, the oldest forgotten first. */
import { ApiError } from "../../api-error";
import type { Item } from "./request";

export interface StoredResponse {
  response: { id: string };
  /** The whole conversation before the response. */
  input: readonly Item[];
  /** What the response adds to it. */
  output: readonly Item[];
}

export class ResponseStore {
  readonly #stored = new Map<string, { one: StoredResponse; bytes: number }>();
  #bytes = 0;

  /** @param most bytes of text, about */
  constructor(private readonly most = 64e6) {}

  put(one: StoredResponse): void {
    const bytes = JSON.stringify(one).length;
    this.#stored.set(one.response.id, { one, bytes });
    this.#bytes += bytes;
    for (const id of this.#stored.keys()) {
      if (this.#bytes <= this.most) break;
      this.delete(id);
    }
  }

  /** @throws ApiError 404 */
  get(id: string, param?: string): StoredResponse {
    const found = this.#stored.get(id);
    if (found) return found.one;
    throw new ApiError(404, `there is no response ${JSON.stringify(id)}, or it is forgotten`, {
      param,
      code: "previous_response_not_found",
    });
  }

  delete(id: string): void {
    this.#bytes -= this.#stored.get(id)?.bytes ?? 0;
    this.#stored.delete(id);
  }
}

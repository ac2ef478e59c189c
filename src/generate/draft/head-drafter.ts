/** Drafts by a model's own draft layers (multi-token prediction). */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Cache, DraftHead } from "../../models";
import type { ForwardOptions } from "../../nn";
import { greedy } from "../../sample";
import { agreedSampler } from "../agreed-tokens";
import type { Checked, Drafter, Forward } from "./drafter";
import { ReturnPoint } from "./return-point";

/** Hidden states (1, T, D) of a draft layer, and what the head takes of the last of them. */
interface Given {
  states: Tensor;
  /** (1, 1, D) */
  last: Tensor;
  /** The layer's number. */
  index: number;
}

/**
 * One draft layer with what it has read. The layer number n reads the hidden state of a position with the token n + 1
 * places behind it: for good once that token is known, and with a draft in its place before, which it then forgets.
 */
class DraftReader {
  /** Hidden states that were not read for good, the first at `#next`; kept. Null for none. */
  #waiting: Tensor | null = null;

  /** @param next the position of the first hidden state that it will read */
  constructor(
    private readonly head: DraftHead,
    private readonly index: number,
    readonly cache: readonly Cache[],
    private next: number,
  ) {}

  get state(): unknown {
    return [this.cache.map(({ state }) => state), this.#waiting];
  }

  /** Hidden states of the next positions. */
  receive(states: Tensor): void {
    this.#wait(this.#waiting ? mx.concatenate([this.#waiting, states], { axis: 1 }) : states);
  }

  #wait(states: Tensor | null): void {
    // Contiguous: a view would hold the hidden states of a whole prompt.
    const kept = states && mx.keep(mx.contiguous(states));
    if (this.#waiting) mx.release(this.#waiting);
    this.#waiting = kept;
  }

  /** Reads for good what comes ahead of a position. @returns null where that is nothing */
  read(end: number, known: readonly number[]): Given | null {
    const count = Math.min(end - this.next, this.#waiting?.dim(1) ?? 0);
    if (count <= 0) return null;
    const states = this.#waiting!;
    const first = this.next + this.index + 1;
    const given = this.#step(states.at(":", mx.slice(0, count)), mx.array(known.slice(first, first + count), "uint32"));
    this.#wait(states.dim(1) > count ? states.at(":", mx.slice(count)) : null);
    this.next += count;
    return given;
  }

  /**
   * Reads what waits, with drafts in the place of tokens, and forgets it.
   * @param more hidden states behind those that wait
   * @param drafts one for each, or more of which the last are taken
   */
  guess(more: Tensor | null, drafts: readonly Tensor[]): Given | null {
    const parts = [this.#waiting, more].filter((part) => part !== null);
    if (parts.length === 0) return null;
    const states = mx.concatenate(parts, { axis: 1 });
    return this.forgetting(states.dim(1), () => this.#step(states, mx.concatenate(drafts.slice(-states.dim(1)))));
  }

  /** Drafts on from a draft: a hidden state that it gave, and the draft behind it. */
  goOn({ states }: Given, draft: Tensor): Given {
    return this.#step(states.at(":", mx.slice(-1)), draft);
  }

  /** Has the layer forget up to `count` hidden states that it reads meanwhile. */
  forgetting<T>(count: number, work: () => T): T {
    const point = new ReturnPoint(this.cache, count);
    const result = work();
    point.back(count, 0);
    return result;
  }

  #step(states: Tensor, tokens: Tensor): Given {
    const given = this.head.step(this.index, states, tokens.reshape(1, -1), this.cache);
    return { states: given.states, last: given.normed.at(":", mx.slice(-1)), index: this.index };
  }

  dispose(): void {
    this.#wait(null);
    for (const layer of this.cache) layer.dispose();
  }
}

export class HeadDrafter implements Drafter {
  readonly name = "draft layers";
  readonly flag = "--mtp";
  readonly reader: Forward = { forward: (inputs, options) => this.#read(inputs, options) };
  readonly #layers: readonly DraftReader[];
  readonly #draw = agreedSampler(greedy);
  /** The prompt while it is read. */
  #prompt: readonly number[] | null;
  /** The position behind the last hidden state that draft layers have received. */
  #end: number;
  /** The model's hidden states of the pass that is under way, kept. */
  #seen: Tensor | null = null;

  /**
   * @param prompt all tokens that the model will have read when it drafts, those that its cache holds first
   * @param cached how many those are: draft layers begin behind them
   * @param tokens how many are drafted at most
   */
  constructor(
    private readonly head: DraftHead,
    prompt: readonly number[],
    { cached, tokens }: { cached: number; tokens: number },
  ) {
    this.#prompt = prompt;
    this.#end = cached;
    const caches = head.makeCache();
    for (const unused of caches.splice(tokens).flat()) unused.dispose();
    this.#layers = caches.map((cache, index) => new DraftReader(head, index, cache, cached));
  }

  #read(inputs: Tensor, options?: ForwardOptions<Cache>): Tensor {
    const { logits, states } = this.head.read(inputs, options);
    if (this.#prompt) {
      this.#receive(states);
      // The last is left for the first draft.
      this.#readKnown(this.#end - 1, this.#prompt);
    } else this.#see(states);
    return logits;
  }

  #see(states: Tensor | null): void {
    if (states) mx.keep(states);
    if (this.#seen) mx.release(this.#seen);
    this.#seen = states;
  }

  #receive(states: Tensor): void {
    const layers = this.head.chains ? this.#layers.slice(0, 1) : this.#layers;
    for (const layer of layers) layer.receive(states);
    this.#end += states.dim(1);
  }

  /** Each layer reads for good what it can, one position less than the one above it. */
  #readKnown(end: number, known: readonly number[]): Given | null {
    const given = this.#layers.map((layer, index) => {
      const own = layer.read(end - index, known);
      if (own && this.head.chains) this.#layers[index + 1]?.receive(own.states);
      return own;
    });
    return given[0]!;
  }

  onChunk(): void {
    mx.eval(this.#layers.map(({ state }) => state));
  }

  propose(history: readonly number[], count: number): readonly number[] {
    this.#prompt = null;
    if (count === 0) return [];
    return mx.scope(() => {
      const first = this.#readKnown(this.#end, history);
      if (!first) return [];
      const drafts = [this.#choice(first)];
      if (this.head.depth === 1) this.#goOn(first, drafts, count);
      else this.#goDown(drafts, count);
      mx.eval(
        drafts,
        this.#layers.map(({ state }) => state),
      );
      return drafts.map((draft) => draft.item());
    });
  }

  /** (1, 1, D) → the likeliest token, (1) */
  #choice({ last, index }: Given): Tensor {
    return this.#draw(this.head.scores(last, index).reshape(1, -1));
  }

  /** Further drafts by the one layer that there is: it takes what it gave for the model's next hidden state. */
  #goOn(first: Given, drafts: Tensor[], count: number): void {
    const layer = this.#layers[0]!;
    layer.forgetting(count - 1, () => {
      for (let given = first; drafts.length < count; drafts.push(this.#choice(given))) {
        given = layer.goOn(given, drafts.at(-1)!);
      }
    });
  }

  /** Further drafts by one layer each. */
  #goDown(drafts: Tensor[], count: number): void {
    let above: Tensor | null = null;
    for (const layer of this.#layers.slice(1, count)) {
      const given = layer.guess(this.head.chains ? above : null, drafts);
      if (!given) return;
      drafts.push(this.#choice(given));
      above = given.states;
    }
  }

  settle(history: readonly number[], { from }: Checked): void {
    const end = history.length - 1;
    if (this.#seen && end > this.#end) {
      mx.scope(() => this.#receive(this.#seen!.at(":", mx.slice(this.#end - from, end - from))));
    }
    this.#see(null);
  }

  dispose(): void {
    this.#see(null);
    for (const layer of this.#layers) layer.dispose();
  }
}

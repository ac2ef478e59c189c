/** Values by sequences of tokens, in a tree in which sequences that begin alike share their beginning. */

interface Node<T> {
  /** The tokens between the parent and this node. */
  edge: readonly number[];
  /** How many tokens lead here from the root. */
  depth: number;
  parent: Node<T> | null;
  /** By the first token of their edges. */
  children: Map<number, Node<T>>;
  value: T | null;
}

export interface Found<T> {
  value: T;
  /** How many tokens the value stands for. */
  length: number;
}

export class RadixTree<T> {
  readonly #root: Node<T> = { edge: [], depth: 0, parent: null, children: new Map(), value: null };

  /** Puts a value at a sequence. @returns the one that was there */
  set(tokens: readonly number[], value: T): T | null {
    let node = this.#root;
    while (node.depth < tokens.length) {
      const child = node.children.get(tokens[node.depth]!);
      if (!child) {
        node = this.#add(node, tokens.slice(node.depth));
        break;
      }
      const shared = sharedLength(child.edge, tokens, node.depth);
      node = shared === child.edge.length ? child : this.#split(child, shared);
    }
    const before = node.value;
    node.value = value;
    return before;
  }

  /** Takes the value of a sequence out. */
  delete(tokens: readonly number[]): T | null {
    const { node, at } = this.#walk(tokens);
    if (at !== tokens.length || node.depth !== at) return null;
    const { value } = node;
    node.value = null;
    this.#prune(node);
    return value;
  }

  /** The values whose sequences the tokens begin with, the shortest first. */
  prefixesOf(tokens: readonly number[]): Found<T>[] {
    const found: Found<T>[] = [];
    const { node: last, at } = this.#walk(tokens);
    for (let node: Node<T> | null = last; node; node = node.parent) {
      if (node.value !== null && node.depth <= at) found.push({ value: node.value, length: node.depth });
    }
    return found.reverse();
  }

  /** How many of the tokens some sequence begins with, and the values of all that begin so and are longer. */
  beyond(tokens: readonly number[]): { shared: number; longer: Found<T>[] } {
    const { node, at } = this.#walk(tokens);
    const longer: Found<T>[] = [];
    const collect = (one: Node<T>) => {
      if (one.value !== null && one.depth > at) longer.push({ value: one.value, length: one.depth });
      for (const child of one.children.values()) collect(child);
    };
    collect(node);
    return { shared: at, longer };
  }

  /** As far as the tokens lead: the node there or below, and how many tokens that are. */
  #walk(tokens: readonly number[]): { node: Node<T>; at: number } {
    let node = this.#root;
    while (node.depth < tokens.length) {
      const child = node.children.get(tokens[node.depth]!);
      if (!child) break;
      const shared = sharedLength(child.edge, tokens, node.depth);
      if (shared < child.edge.length) return { node: child, at: node.depth + shared };
      node = child;
    }
    return { node, at: node.depth };
  }

  #add(parent: Node<T>, edge: readonly number[]): Node<T> {
    const node: Node<T> = { edge, depth: parent.depth + edge.length, parent, children: new Map(), value: null };
    parent.children.set(edge[0]!, node);
    return node;
  }

  /** A node in the middle of an edge. */
  #split(child: Node<T>, length: number): Node<T> {
    const middle = this.#add(child.parent!, child.edge.slice(0, length));
    child.edge = child.edge.slice(length);
    child.parent = middle;
    middle.children.set(child.edge[0]!, child);
    return middle;
  }

  /** Removes what leads nowhere, and joins an edge that no longer branches. */
  #prune(node: Node<T>): void {
    if (node.value !== null || !node.parent) return;
    const { parent } = node;
    if (node.children.size === 0) {
      parent.children.delete(node.edge[0]!);
      this.#prune(parent);
    } else if (node.children.size === 1) {
      const [child] = node.children.values();
      child!.edge = [...node.edge, ...child!.edge];
      child!.parent = parent;
      parent.children.set(child!.edge[0]!, child!);
    }
  }
}

/** How many tokens of an edge the sequence has from a place on. */
function sharedLength(edge: readonly number[], tokens: readonly number[], from: number): number {
  let shared = 0;
  while (shared < edge.length && from + shared < tokens.length && edge[shared] === tokens[from + shared]) shared++;
  return shared;
}

/** Texts that end an answer, found while it arrives, wherever tokens part them. */
import { TextStates, type Transition } from "../text/text-states";

/** Markers of thoughts within which stop texts do not count. */
export interface Thoughts {
  start: string;
  end: string;
  /** Whether the answer begins within one. */
  open: boolean;
}

const answering = "answer";
const thinking = "thought";
const ended = "end";

export class StopTexts {
  readonly #states: TextStates;

  /** @param thoughts null: stop texts count everywhere */
  constructor(
    texts: readonly string[],
    private readonly thoughts: Thoughts | null,
  ) {
    const transitions: Record<string, Transition[]> = { [answering]: texts.map((text) => [text, ended]) };
    if (thoughts) {
      transitions[answering]!.push([thoughts.start, thinking]);
      transitions[thinking] = [[thoughts.end, answering]];
    }
    this.#states = new TextStates(transitions, thoughts?.open ? thinking : answering);
  }

  /** Whether a stop text has been found: what follows is no part of the answer. */
  get found(): boolean {
    return this.#states.state === ended;
  }

  /** What is certain to stand before a stop text. The end of the text is held back while it may be the start of one. */
  push(text: string): string {
    if (this.found) return "";
    let passed = "";
    let before = this.#states.state;
    for (const segment of this.#states.push(text)) {
      if (segment.state !== before) {
        if (segment.state === ended) break;
        // Markers of thoughts stay in the text.
        passed += segment.state === thinking ? this.thoughts!.start : this.thoughts!.end;
        before = segment.state;
      }
      passed += segment.text;
    }
    return passed;
  }

  /** What was held back: no more text will come. */
  end(): string {
    return this.found ? "" : this.#states.flush().text;
  }
}

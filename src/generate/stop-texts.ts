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
/** The state behind a stop text is its place in the list, after this. */
const ended = "end ";

export class StopTexts {
  readonly #states: TextStates;

  /** @param thoughts null: stop texts count everywhere */
  constructor(
    private readonly texts: readonly string[],
    private readonly thoughts: Thoughts | null,
  ) {
    const transitions: Record<string, Transition[]> = { [answering]: texts.map((text, i) => [text, ended + i]) };
    if (thoughts) {
      transitions[answering]!.push([thoughts.start, thinking]);
      transitions[thinking] = [[thoughts.end, answering]];
    }
    this.#states = new TextStates(transitions, thoughts?.open ? thinking : answering);
  }

  /** Whether a stop text has been found: what follows is no part of the answer. */
  get found(): boolean {
    return this.#states.state.startsWith(ended);
  }

  /** Which one; null where there is none. */
  get match(): string | null {
    return this.found ? this.texts[Number(this.#states.state.slice(ended.length))]! : null;
  }

  /** What is certain to stand before a stop text. The end of the text is held back while it may be the start of one. */
  push(text: string): string {
    if (this.found) return "";
    let passed = "";
    let before = this.#states.state;
    for (const segment of this.#states.push(text)) {
      if (segment.state !== before) {
        if (segment.state.startsWith(ended)) break;
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

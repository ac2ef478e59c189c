/** A grammar as text, and the language that it is in. */
import type { GrammarLanguage } from "../../mlx/grammar";

export interface GrammarText {
  language: GrammarLanguage;
  text: string;
}

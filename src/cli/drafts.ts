/** The flags about drafted tokens, which generate and chat have, and how drafts did, for a person. */
import { ExitCode, UserError } from "../errors";
import type { DraftFigures } from "../generate/answer";
import type { Drafts } from "../generate/draft-stepper";
import type { DraftHead } from "../models";
import { flag, spelled, type Values } from "./flags";
import { wasGiven } from "./parse";

/** A check of more tokens at a time costs more than drafts save. */
const mostTokens = 16;

export const draftFlags = {
  draft: flag.choice("draft tokens without a model: ngram takes what followed the last ones earlier in the text", [
    "ngram",
  ]),
  mtp: flag.integer("draft so many tokens at a time by the model's own draft layers (multi-token prediction)", {
    min: 1,
    max: mostTokens,
  }),
  numDraftTokens: flag.integer(
    "draft so many tokens at a time; from the text up to 8 unless said, and fewer after wrong ones",
    { default: 3, min: 1 },
  ),
};

type DraftValues = Values<typeof draftFlags> & { draftModel?: string; image?: readonly string[] };

/** Drafts from the text cost nothing where there are none, so that there may be more at a time. */
const ngramTokens = 8;

/** @throws UserError (usage) where two kinds of drafts are asked for, or drafts beside images */
export function checkDrafts(flags: DraftValues): void {
  const asked = (["draft", "draftModel", "mtp"] as const).filter((name) => flags[name] !== undefined).map(spelled);
  if (asked.length > 0 && flags.image && flags.image.length > 0) {
    throw new UserError(`--image does not go with ${asked[0]}: drafts are made from text alone`, {
      code: ExitCode.usage,
      hint: "Keep one of them.",
    });
  }
  if (asked.length < 2) return;
  throw new UserError(`${asked.slice(0, -1).join(", ")} and ${asked.at(-1)} exclude each other`, {
    code: ExitCode.usage,
    hint: "Keep one of them.",
  });
}

/**
 * What the flags ask for beside a draft model; null for no drafts.
 * @param head the model's draft layers, where they were asked for
 * @throws UserError (usage) for more tokens than there are draft layers; a single layer drafts as many as it is asked for
 */
export function draftsOf(flags: DraftValues, head: DraftHead | undefined): Drafts | null {
  if (flags.draft)
    return { from: flags.draft, tokens: wasGiven(flags, "numDraftTokens") ? flags.numDraftTokens : ngramTokens };
  if (flags.mtp === undefined || !head) return null;
  if (head.depth > 1 && flags.mtp > head.depth) {
    throw new UserError(`--mtp is ${flags.mtp}, but the model has ${head.depth} draft layers, for a token each`, {
      code: ExitCode.usage,
      hint: `Take a number from 1 to ${head.depth}.`,
    });
  }
  return { head, tokens: flags.mtp };
}

/** "45 of 60 drafted tokens right (75.0%)" */
export const draftLine = ({ proposed, accepted, acceptance }: DraftFigures): string =>
  `${accepted} of ${proposed} drafted tokens right (${(100 * acceptance).toFixed(1)}%)`;

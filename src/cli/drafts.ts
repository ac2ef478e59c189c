/** The flags about drafted tokens, which generate and chat have, and how drafts did, for a person. */
import { ExitCode, UserError } from "../errors";
import type { DraftFigures } from "../generate/answer";
import type { Drafts } from "../generate/draft-stepper";
import { flag, type Values } from "./flags";
import { wasGiven } from "./parse";

export const draftFlags = {
  draft: flag.choice("draft tokens without a model: ngram takes what followed the last ones earlier in the text", [
    "ngram",
  ]),
  numDraftTokens: flag.integer(
    "draft so many tokens at a time; from the text up to 8 unless said, and fewer after wrong ones",
    {
      default: 3,
      min: 1,
    },
  ),
};

type DraftValues = Values<typeof draftFlags> & { draftModel?: string };

/** Drafts from the text cost nothing where there are none, so that there may be more at a time. */
const ngramTokens = 8;

/** @throws UserError (usage) where two kinds of drafts are asked for */
export function checkDrafts({ draft, draftModel }: DraftValues): void {
  if (draft === undefined || draftModel === undefined) return;
  throw new UserError("--draft and --draft-model exclude each other", {
    code: ExitCode.usage,
    hint: "Leave out one of them.",
  });
}

/** What the flags ask for beside a draft model; null for no drafts. */
export function draftsOf(flags: DraftValues): Drafts | null {
  if (flags.draft === undefined) return null;
  return { from: flags.draft, tokens: wasGiven(flags, "numDraftTokens") ? flags.numDraftTokens : ngramTokens };
}

/** "45 of 60 drafted tokens right (75.0%)" */
export const draftLine = ({ proposed, accepted, acceptance }: DraftFigures): string =>
  `${accepted} of ${proposed} drafted tokens right (${(100 * acceptance).toFixed(1)}%)`;

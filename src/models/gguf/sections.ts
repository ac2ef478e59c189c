/** Language models that turn by three coordinates: text has the same one thrice. */
import { type DecoderFacts, decoder } from "./decoder";
import { type GgufFacts, u32 } from "./facts";
import { plainLayer, TensorNames } from "./names";

interface Rope {
  mrope_section?: readonly number[] | null;
}

/** As `decoder`, for the language model within a checkpoint that also sees; files say how many pairs each coordinate turns. */
export const sections = (architecture: string, own: DecoderFacts): GgufFacts =>
  decoder(architecture, {
    names: new TensorNames(plainLayer, { prefix: "language_model." }),
    ...own,
    read(file, { rope_scaling }) {
      const own = file.list("rope.dimension_sections")?.slice(0, 3);
      return { rope_scaling: own ? { type: "mrope", mrope_section: own } : rope_scaling };
    },
    write({ rope_scaling, rope_parameters, headDim }) {
      const said = ((rope_scaling ?? rope_parameters) as Rope | null | undefined)?.mrope_section;
      const third = Math.ceil(headDim / 6);
      const own = said ?? [third, third, third];
      return { "rope.dimension_sections": u32([...own, 0, 0, 0, 0].slice(0, 4)) };
    },
  });

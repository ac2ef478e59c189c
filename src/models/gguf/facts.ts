/** What a model file says of its architecture in GGUF files, llama.cpp's format. */
import type { DividedTensors, JoinedTensors, MergedTensors, TensorChanges } from "./changes";
import type { TensorNames } from "./names";

type Scalar = number | bigint | boolean | string;

/** A value with the type that it is written in; a list's entries all have it. */
export type GgufField = readonly [
  type: "uint32" | "int32" | "uint64" | "float32" | "bool" | "string",
  value: Scalar | readonly Scalar[],
];

/** Metadata by their keys; those that are undefined are left out. */
export type GgufFields = Record<string, GgufField | undefined>;

export const u32 = (value: number | readonly number[]): GgufField => ["uint32", value];
export const f32 = (value: number | readonly number[]): GgufField => ["float32", value];
export const flag = (value: boolean | readonly boolean[]): GgufField => ["bool", value];

/** A file as an architecture sees it. Keys are without the architecture's name before them. */
export interface GgufDescription {
  number(key: string): number | undefined;
  /** @throws UserError where there is none */
  need(key: string): number;
  text(key: string): string | undefined;
  /** A list of numbers or of truths (1, 0); one that stands alone is a list of one. */
  list(key: string): readonly number[] | undefined;
  /** The numbers of a tensor with one axis: one that says how positions are stretched, or another setting. */
  factors(tensor: string): readonly number[] | undefined;
  /** Row-major; undefined for a tensor that the file lacks. */
  shape(tensor: string): readonly number[] | undefined;
  /** @throws UserError that names the file */
  wrong(problem: string): never;
}

export interface WrittenMetadata {
  /** `general.architecture`, where it is not the usual one of the model type. */
  architecture?: string;
  /** Keys are without the architecture's name before them. */
  fields: Record<string, GgufField>;
  /** Factors on the waves of a rotation, (headDim / 2) each, by the names of their tensors. */
  tensors: Record<string, readonly number[]>;
}

export interface GgufFacts {
  /** `general.architecture`; `write` may name another. */
  architecture: string;
  /** Whether a file is of this model type, where several have the same architecture. */
  matches?(file: GgufDescription): boolean;
  names: TensorNames;
  /** Paths of modules in the checkpoint, by the names of tensors without their ends, where layers differ. @param config config.json */
  places?(config: object): Readonly<Record<string, string>>;
  /** Tensors that lie in another form. @param config config.json */
  changes?(config: object): TensorChanges;
  /** Weights that files have as several tensors. @param config config.json */
  joined?(config: object): JoinedTensors;
  /** Tensors that some files have in the place of several. Read, never written. @param config config.json */
  divided?(config: object): DividedTensors;
  /** Parameters that files have as one tensor. @param config config.json */
  merged?(config: object): MergedTensors;
  /** Parameters that files have as one tensor, above each other in a first axis of its own, by the tensor's name. */
  stacked?(config: object): Readonly<Record<string, readonly string[]>>;
  /** Tensors that llama.cpp wants and nothing reads, with their shapes: zeros in written files. */
  idle?(config: object): Readonly<Record<string, readonly number[]>>;
  /** Settings that files have as tensors of one number throughout, with one axis: what they are, by the tensors' names. */
  constants?(config: object): Readonly<Record<string, readonly [value: number, length: number]>>;
  /** Parameters of one number that files have as metadata, by their keys. */
  numbers?: Readonly<Record<string, string>>;
  /** The same of parameters that each layer has, by their paths there: lists, under keys without the architecture's name. */
  layerNumbers?: Readonly<Record<string, string>>;
  /** What is added to the weights of norms: some checkpoints center theirs on zero, GGUF's are centered on one. */
  normOffset: 0 | 1;
  /** `read` knows what the factors on the waves come to; where it does not, they must be Llama 3's. */
  readsFactors?: boolean;
  /** A file's metadata as config.json has them. */
  read(file: GgufDescription): Record<string, unknown>;
  /**
   * The other way round. @param config config.json, its gaps filled by the model's `Args` @param source what errors call
   * its place @throws UserError for a setting that GGUF has no form for
   */
  write(config: object, source: string): WrittenMetadata;
}

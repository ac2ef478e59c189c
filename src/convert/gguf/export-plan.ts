/** What a model's configuration comes to in a GGUF file: metadata, and how weights change. */
import { ExitCode, UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import { architecture, changeOf, divided, type GgufField, modelTypesWith } from "../../models";
import { parseArgs } from "../../models/parse-args";
import type { ModelConfig } from "../config";

export interface ExportPlan {
  /** `general.architecture` */
  architecture: string;
  /** The architecture's metadata. */
  fields: [string, GgufField][];
  /** How many experts a layer has; 0 for none. */
  experts: number;
  /** Factors on the waves of the rotation, by the names of their tensors. */
  factors: Readonly<Record<string, readonly number[]>>;
  /** A parameter under the names, and in the form, that the file has it, lazily; null where it has no place. */
  change: (name: string, weight: Tensor) => [name: string, tensor: Tensor][] | null;
  /** Tensors that are made of several parameters, which `change` gives none for, or of none, lazily. */
  gather: (parameters: ReadonlyMap<string, Tensor>) => [name: string, tensor: Tensor][];
  /** Metadata that are parameters, which `change` gives no tensors for. */
  numbers: (parameters: ReadonlyMap<string, Tensor>) => [string, GgufField][];
}

/** @throws UserError for a model type, or a setting of one, that GGUF has no form for */
export async function exportPlan(config: ModelConfig, folder: string): Promise<ExportPlan> {
  const type = config.model_type as string;
  const { Args, gguf: facts } = await architecture(type);
  if (!facts) {
    throw new UserError(`models of type "${type}" cannot be saved as GGUF`, {
      code: ExitCode.notFound,
      hint: `Those that can: ${(await modelTypesWith("gguf")).join(", ")}`,
    });
  }
  const settings = { ...config, ...(parseArgs(Args, config, folder) as object) };
  const { architecture: variant, fields, tensors } = facts.write(settings, folder);
  const changes = facts.changes?.(settings) ?? {};
  const joined = facts.joined?.(settings) ?? {};
  const stacked = Object.entries(facts.stacked?.(settings) ?? {});
  const places = Object.entries(facts.places?.(settings) ?? {});
  const ofPlace = new Map(places.map(([tensor, path]) => [path, tensor]));
  const merged = Object.entries(facts.merged?.(settings) ?? {});
  const numbers = Object.entries(facts.numbers ?? {});
  const layers = Array.from({ length: config.num_hidden_layers as number }, (_, i) => i);
  const lists = Object.entries(facts.layerNumbers ?? {}).map(([key, own]): [key: string, parameters: string[]] => [
    key,
    layers.map((i) => facts.names.inLayer(i, own)),
  ]);
  const gathered = new Set([
    ...stacked.flatMap(([, parts]) => parts),
    ...merged.flatMap(([, { parameters }]) => parameters),
    ...numbers.map(([, parameter]) => parameter),
    ...lists.flatMap(([, own]) => own),
  ]);
  const name = variant ?? facts.architecture;
  return {
    architecture: name,
    fields: Object.entries(fields).map(([key, field]) => [`${name}.${key}`, field]),
    experts: (fields.expert_count?.[1] as number | undefined) ?? 0,
    factors: tensors,
    numbers(parameters) {
      const numberOf = (parameter: string) =>
        mx.scope(() => parameters.get(parameter)!.astype("float32").item() as number);
      return [
        ...numbers.map(([key, own]): [string, GgufField] => [`${name}.${key}`, ["float32", numberOf(own)]]),
        ...lists.map(([key, own]): [string, GgufField] => [key, ["float32", own.map(numberOf)]]),
      ];
    },
    gather(parameters) {
      const stacks = stacked.map(([name, parts]): [string, Tensor] => [
        name,
        mx.stack(parts.map((part) => parameters.get(part)!)),
      ]);
      const made = merged.map(([name, { parameters: own, merge }]): [string, Tensor] => [
        name,
        merge(own.map((part) => parameters.get(part)!)),
      ]);
      const idle = Object.entries(facts.idle?.(settings) ?? {});
      const constants = Object.entries(facts.constants?.(settings) ?? {});
      return [
        ...stacks,
        ...made,
        ...idle.map(([name, shape]): [string, Tensor] => [name, mx.zeros(shape)]),
        ...constants.map(([name, [value, length]]): [string, Tensor] => [name, mx.full([length], value, "float32")]),
      ];
    },
    change(parameter, weight) {
      if (gathered.has(parameter)) return [];
      const [layer, own] = facts.names.withinLayer(parameter);
      const path = own.slice(0, Math.max(own.lastIndexOf("."), 0));
      if (Object.hasOwn(joined, path)) {
        const { parts, split } = joined[path]!;
        return split(weight).map((tensor, i) => [`blk.${layer}.${parts[i]}${own.slice(path.length)}`, tensor]);
      }
      const [module, kind] = divided(parameter);
      const tensor = ofPlace.get(module);
      const written = tensor === undefined ? facts.names.ofParameter(parameter) : `${tensor}.${kind}`;
      if (written === null) return null;
      const change = changeOf(changes, facts.names, parameter);
      if (change) return [[written, change.write(weight)]];
      const isNorm = facts.normOffset && path.endsWith("norm");
      return [[written, isNorm ? weight.astype("float32").add(facts.normOffset) : weight]];
    },
  };
}

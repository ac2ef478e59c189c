/** Whether this machine can run mlxlm, and what to do where it cannot. */
import { UserError } from "../../errors";
import type { Finding, Found } from "./finding";
import { backendOf, cudaFacts, gpuFindings } from "./gpu";
import {
  environmentFindings,
  groupLimit,
  instructionSet,
  memoryFindings,
  processorFindings,
  programFindings,
  systemFindings,
  threads,
} from "./machine";
import type { Engine, Probes } from "./probes";
import { askHub, hubFindings, storageFacts, storageFindings, tokenFacts } from "./storage";

export interface Diagnosis {
  /** Nothing fails. */
  ok: boolean;
  findings: Finding[];
  /** For programs: sizes in bytes. */
  facts: Record<string, unknown>;
}

/** Looks at everything; the hub is asked meanwhile. */
export async function diagnose(probes: Probes, version: string): Promise<Diagnosis> {
  const token = tokenFacts(probes);
  // What it throws for an address that is none is found below, among the variables.
  const asking = askHub(probes, token).catch((error: Error) => ({ endpoint: "HF_ENDPOINT", error: error.message }));
  const engine: Engine | Error = await probes.engine().catch((error: Error) => error);
  const backend = backendOf(probes);
  const cuda = probes.platform === "linux" ? cudaFacts(probes) : null;
  const storage = storageFacts(probes);
  const answer = await asking;

  const groups: Record<string, Found[]> = {
    Program: programFindings(probes, version, engine),
    Machine: [...processorFindings(probes), ...systemFindings(probes), ...memoryFindings(probes, engine)],
    GPU: gpuFindings(backend, cuda, engine),
    Storage: storageFindings(probes, storage),
    Hub: hubFindings(token, answer),
    Environment: environmentFindings(probes),
  };
  const findings = Object.entries(groups).flatMap(([group, found]) => found.map((one) => ({ group, ...one })));
  return {
    ok: findings.every(({ status }) => status !== "fail"),
    findings,
    facts: {
      version,
      build: probes.build,
      backend,
      bun: probes.bun,
      executable: probes.executable,
      platform: `${probes.platform}-${probes.arch}`,
      processor: probes.processor,
      instruction_set: instructionSet(probes),
      threads: threads(probes),
      memory: probes.memory,
      memory_limit: groupLimit(probes),
      memory_available: engine instanceof Error ? null : engine.available,
      gpus: engine instanceof Error ? [] : engine.gpus,
      cuda: backend === "cuda" ? cuda : null,
      ...storage,
      token: token === null ? null : token.from,
      hub: answer,
      error: engine instanceof UserError ? engine.message : null,
    },
  };
}

export { realProbes } from "./probes";

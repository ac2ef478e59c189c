/** The bill of materials of an executable, as CycloneDX 1.6. */
import { Enums, Models, Serialize, type SPDX, Spec, Validation } from "@cyclonedx/cyclonedx-library";
import type { Component } from "./components";

export interface Subject {
  version: string;
  /** The executable's SHA-256. */
  sha256: string;
  platform: string;
  /** The time of the commit, so that a second build gives the same file. */
  time: Date;
}

/** @throws Error where the result is not valid by the standard's own schema */
export async function sbomOf(subject: Subject, components: readonly Component[]): Promise<string> {
  const bom = new Models.Bom({ version: 1 });
  bom.metadata.timestamp = subject.time;
  const program = new Models.Component(Enums.ComponentType.Application, "mlxlm", {
    bomRef: "mlxlm",
    version: subject.version,
    purl: `pkg:npm/%40mlxlm/${subject.platform}@${subject.version}`,
    hashes: new Models.HashDictionary([[Enums.HashAlgorithm["SHA-256"], subject.sha256]]),
    licenses: new Models.LicenseRepository([new Models.SpdxLicense("MIT")]),
  });
  bom.metadata.component = program;
  for (const { name, version, license, purl, url } of components) {
    const part = new Models.Component(Enums.ComponentType.Library, name, {
      bomRef: `${name}@${version}`,
      version,
      purl,
      licenses: new Models.LicenseRepository([licenceOf(license)]),
      externalReferences: new Models.ExternalReferenceRepository([
        new Models.ExternalReference(url, Enums.ExternalReferenceType.Distribution),
      ]),
    });
    bom.components.add(part);
    program.dependencies.add(part.bomRef);
  }
  const serializer = new Serialize.JsonSerializer(new Serialize.JSON.Normalize.Factory(Spec.Spec1dot6));
  const text = serializer.serialize(bom, { sortLists: true, space: 2 });
  const problem = await new Validation.JsonStrictValidator(Spec.Version.v1dot6).validate(text);
  if (problem !== null) throw new Error(`the bill of materials is not valid: ${JSON.stringify(problem)}`);
  return `${text}\n`;
}

const licenceOf = (license: string) =>
  / (AND|OR|WITH) /.test(license)
    ? new Models.LicenseExpression(license)
    : new Models.SpdxLicense(license as SPDX.SpdxId);

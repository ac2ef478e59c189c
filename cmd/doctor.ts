/** `mlxlm doctor`: whether this machine can run mlxlm, and what to do where it cannot. */
import { version } from "../package.json";
import { command } from "../src/cli/command";
import { ExitCode } from "../src/errors";
import { doctorFlags } from "./doctor.flags";

export default command({
  name: "doctor",
  summary: "Check that this machine can run mlxlm, and say what to do where it cannot",
  examples: ["mlxlm doctor", "mlxlm doctor --json", "HF_HUB_OFFLINE=1 mlxlm doctor"],
  flags: doctorFlags,
  diagnoses: true,

  async run({ out }) {
    const { diagnose, realProbes } = await import("../src/cli/doctor");
    const { report } = await import("../src/cli/doctor/report");
    const { findings, ok, facts } = await diagnose(realProbes(), version);
    out.text(report(findings), { colours: true });
    out.result({ ok, findings, facts });
    if (!ok) process.exitCode = ExitCode.failure;
  },
});

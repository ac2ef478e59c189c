/** `mlxlm licenses`: the licences of what the executable contains. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { command } from "../src/cli/command";
import { embeddedText } from "../src/embedded";
import { UserError } from "../src/errors";
import { licensesFlags } from "./licenses.flags";

const name = "THIRD-PARTY-LICENSES.txt";
const built = join(import.meta.dir, "../dist", name);

export default command({
  name: "licenses",
  summary: "Print the licences of what the executable contains",
  examples: ["mlxlm licenses | less"],
  flags: licensesFlags,

  async run({ out }) {
    const text = embeddedText("licenses", name) ?? (existsSync(built) ? readFileSync(built, "utf8") : null);
    if (text === null) throw new UserError(`${built} is missing`, { hint: "Build it: bun run build" });
    out.text(text);
    out.result({ text });
  },
});

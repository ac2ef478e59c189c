/** Runs a command as a rank, in a folder of the rank's own: `rank0`, `rank1`, … of the one that is named first. */
import { join } from "node:path";

const [folder] = process.argv.splice(2, 1);
process.chdir(join(folder!, `rank${process.env.MLX_RANK}`));
await import("../../cmd/main");

/**
 * How long a test may take: Bun's five seconds are few on a crowded machine. Bun does not read this from bunfig.toml, and takes what is said here for
 * the first test file only, so `bun run test` also says it as a flag.
 */
import { setDefaultTimeout } from "bun:test";

setDefaultTimeout(60_000);

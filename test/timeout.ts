/**
 * Ahead of the first test file: how long a test may take. Bun does not read it from bunfig.toml, and five seconds are few on a crowded machine. It
 * forgets this behind that file, so `bun run test` says it as a flag.
 */
import { setDefaultTimeout } from "bun:test";

setDefaultTimeout(60_000);

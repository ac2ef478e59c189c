/** Ahead of every test file: how long a test may take. Bun does not read it from bunfig.toml, and five seconds are few on a crowded machine. */
import { setDefaultTimeout } from "bun:test";

setDefaultTimeout(60_000);

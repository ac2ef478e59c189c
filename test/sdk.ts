#!/usr/bin/env bun
/** The official Python SDKs against servers of this process: `bun run sdk`, with openai and anthropic in ORACLE_PYTHON. */
import { join } from "node:path";
import { ScriptStepper, scriptedModel } from "./script-stepper";
import { testServer } from "./serve";

const call = (city: string) => `<tool_call>{"name": "weather", "arguments": {"city": "${city}"}}</tool_call>`;
const demo = testServer();
const scripted = testServer({ open: scriptedModel });
(await demo.context.models.lease()).release();
const { served, release } = await scripted.context.models.lease();
const script = { text: call("Bern") + call("Basel"), prompts: [] };
Object.assign(served.scheduler, { stepper: new ScriptStepper(served.tokenizer, script) });
release();

const python = process.env.ORACLE_PYTHON ?? "python3";
const command = [python, join(import.meta.dir, "oracle/sdk.py"), demo.url, scripted.url];
const child = Bun.spawn(command, { stdout: "inherit", stderr: "inherit" });
const code = await child.exited;
await Promise.all([demo.stop(), scripted.stop()]);
process.exit(code);

import { describe, expect, test } from "bun:test";
import { ExitCode, type UserError } from "../errors";
import { checkAlike, joinGroup } from "./group";

const member = { version: "1.0.0", command: "generate", words: ["--model", "demo"] };

describe("ranks that differ are refused by name", () => {
  test.each([
    [{ version: "1.0.1" }, "mlxlm 1.0.1 runs on rank 1, and 1.0.0 on rank 0"],
    [{ command: "chat" }, "rank 1 runs chat, and rank 0 generate"],
    [{ words: ["--model", "other"] }, "the flags differ: rank 1 has other where rank 0 has demo"],
    [{ words: ["--model"] }, "the flags differ: rank 1 has nothing where rank 0 has demo"],
    [{ words: ["--model", "demo", "--verbose"] }, "the flags differ: rank 1 has --verbose where rank 0 has nothing"],
  ])("%j", (other, message) => {
    expect(() => checkAlike([member, { ...member, ...other }])).toThrow(message);
  });

  test("those that are alike are not", () => {
    expect(() => checkAlike([member, { ...member }, { ...member }])).not.toThrow();
  });
});

test("a command for one process says so", async () => {
  const error = (await joinGroup({ name: "convert" }, []).catch((error) => error)) as UserError;
  expect(error.message).toBe("convert runs on one process only");
  expect(error.code).toBe(ExitCode.usage);
});

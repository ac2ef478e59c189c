/** The user's own folder, which a container's user, a number without a name, may not have. */
import { homedir, userInfo } from "node:os";
import { ExitCode, UserError } from "./errors";

/** HOME, else what the system's list of users says; null where neither names one. */
export function homeFolder(): string | null {
  try {
    return homedir() || userInfo().homedir || null;
  } catch {
    return null;
  }
}

/** @throws UserError where there is none */
export function neededHome(): string {
  const home = homeFolder();
  if (home !== null) return home;
  throw new UserError("this user has no home folder, and HOME is not set", {
    code: ExitCode.notFound,
    hint: "Name a folder that can be written: HOME=/path mlxlm …",
  });
}

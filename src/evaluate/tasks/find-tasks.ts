/** The tasks that a user names, from folders of their own and from the harness. */
import { ExitCode, UserError } from "../../errors";
import { harnessTasks, installedTasks } from "./harness-folder";
import { type Selection, selectTasks } from "./select-tasks";
import { indexTasks, type TaskIndex } from "./task-index";

export interface TaskFolders {
  /** Folders with task files; they win over the harness's. */
  includePath?: readonly string[];
  /** The harness's folder, in place of an installed one. */
  tasksDir?: string;
}

/** @throws UserError for a folder that is not there, and where there is no folder at all */
export async function allTasks({ includePath = [], tasksDir }: TaskFolders): Promise<TaskIndex> {
  const harness = tasksDir === undefined ? await installedTasks() : await harnessTasks(tasksDir);
  if (harness === null && includePath.length === 0) {
    throw new UserError("there are no tasks: lm-evaluation-harness was not found on this machine", {
      code: ExitCode.notFound,
      hint: "--tasks-dir FOLDER names a checkout of it, --include-path FOLDER a folder with task files of your own.",
    });
  }
  return indexTasks([...(harness === null ? [] : [harness]), ...includePath]);
}

const isPattern = (name: string) => /[*?[]/.test(name);

/** The harness's many files are only read where a name is not found elsewhere. @throws UserError as selectTasks */
export async function findTasks(names: readonly string[], folders: TaskFolders): Promise<Selection> {
  const { includePath = [] } = folders;
  const files = names.every((name) => /\.ya?ml$/.test(name));
  if ((includePath.length > 0 || files) && !names.some(isPattern)) {
    try {
      return await selectTasks(await indexTasks(includePath), names);
    } catch (error) {
      const isMissing = error instanceof UserError && error.code === ExitCode.notFound;
      const harness = folders.tasksDir ?? (await installedTasks());
      if (!isMissing || harness === null) throw error;
    }
  }
  return selectTasks(await allTasks(folders), names);
}

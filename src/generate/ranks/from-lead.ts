/** What only the first process of a group does: it has the user's terminal, or pipe, and its clock is the group's. */
import { broadcastJson } from "../../mlx/group-messages";
import { errorOfRank, type Failure, failureOf } from "./failures";
import { everyone } from "./orders";

/** The first process's value on all, which must all call this. @throws UserError on all where it fails */
export async function fromLead<T>(read: () => T | Promise<T>): Promise<T> {
  const group = everyone();
  if (group.rank !== 0) {
    const { value, failure } = broadcastJson<{ value?: T; failure?: Failure }>(group, null);
    if (failure) throw errorOfRank(0, failure);
    return value as T;
  }
  let value: T;
  try {
    value = await read();
  } catch (error) {
    broadcastJson(group, { failure: failureOf(error) });
    throw error;
  }
  broadcastJson(group, { value });
  return value;
}

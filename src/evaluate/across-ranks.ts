/** An evaluation on several processes: each has the whole model, and answers some of the requests. */
import type { distributed } from "../mlx";
import { gatherJson } from "../mlx/group-messages";
import type { AnswerAll } from "./run-tasks";
import type { Answer, Request } from "./tasks/request";

/** Which of the ranks answers each request. Those of one context stay together: it is read once for all of them. */
export function ranksOf(requests: readonly Request[], size: number): number[] {
  const contexts = new Map<string, number>();
  return requests.map((request, i) => {
    const context = request.type === "loglikelihood" ? `c ${request.context}` : `${i}`;
    const place = contexts.get(context) ?? contexts.size;
    contexts.set(context, place);
    return place % size;
  });
}

/** JSON has no infinities. */
const numbersOf = (answer: Answer) => (Array.isArray(answer) ? [String(answer[0]), answer[1]] : String(answer));

function answerOf(written: ReturnType<typeof numbersOf>, request: Request): Answer {
  if (Array.isArray(written)) return [Number(written[0]), written[1] === true];
  return request.type === "loglikelihood_rolling" ? Number(written) : written;
}

/** As `answerAll` on one process; all ranks have all answers then. */
export function answerAcrossRanks(group: distributed.Group, answerAll: AnswerAll): AnswerAll {
  return async (requests) => {
    const ranks = ranksOf(requests, group.size);
    const own = requests.filter((_, i) => ranks[i] === group.rank);
    const answers = await answerAll(own);
    if (!answers) return null;
    const all = gatherJson(group, answers.map(numbersOf)).map((some) => some.values());
    return requests.map((request, i) => answerOf(all[ranks[i]!]!.next().value!, request));
  };
}

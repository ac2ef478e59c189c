/** Kimi-VL: DeepSeek V3 in a checkpoint that also sees. */
export { Args, awq, joins, keepsDtype, Model } from "./kimi_k25";

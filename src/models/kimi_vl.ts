/** Kimi-VL: DeepSeek V3 in a checkpoint that also sees. */
export { Args, awq, gguf, joins, keepsDtype, Model } from "./kimi_k25";

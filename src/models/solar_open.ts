/** Solar Open: GLM 4.5 under another name. */
export { Args, awq, gguf, keepsDtype, Model } from "./glm4_moe";

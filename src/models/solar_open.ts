/** Solar Open: GLM 4.5 under another name. */
export { Args, awq, keepsDtype, Model } from "./glm4_moe";

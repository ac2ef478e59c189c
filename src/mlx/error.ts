/** An error that MLX or its façade reports: wrong shape or dtype, a freed tensor, an op the device lacks. */
export class MlxError extends Error {
  override name = "MlxError";
}

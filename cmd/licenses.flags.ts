/** The flags of `mlxlm licenses`: none of its own. */
export const licensesFlags = {};

/** The flags of `mlxlm doctor`: none of its own. */
export const doctorFlags = {};

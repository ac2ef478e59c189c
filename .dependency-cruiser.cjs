/** The floor plan: imports point down this list, and only src/mlx speaks to native code. */
const floors = [
  "cmd",
  "src/cli",
  "src/serve",
  "src/quant",
  "src/evaluate",
  "src/generate",
  "src/tune",
  "src/demo",
  "src/data",
  "src/convert",
  "src/sample",
  "src/text",
  "src/images",
  "src/hub",
  "src/models",
  "src/nn",
  "src/optim",
  "src/mlx",
];

const folder = (name) => `^${name}/`;
/** The one circle: tensors have the operations as methods, and the operations make tensors. */
const tensorAndOperations =
  "^src/mlx/(tensor|operand|bounds|creation|elementwise|indexing|index-plan|products|reductions|shaping)\\.ts$";

const tests = "\\.test\\.ts$";

module.exports = {
  forbidden: [
    ...floors.slice(1).map((floor, i) => ({
      name: `${floor.replace("src/", "")}-looks-down`,
      comment: `${floor} may import only what stands below it`,
      severity: "error",
      from: { path: folder(floor), pathNot: tests },
      to: { path: floors.slice(0, i + 1).map(folder) },
    })),
    {
      name: "ground-is-ground",
      comment: "the few files directly under src/ import no room",
      severity: "error",
      from: { path: "^src/[^/]+\\.ts$" },
      to: { path: [...floors.map(folder)] },
    },
    {
      name: "ffi-in-mlx-only",
      comment: "only the façade speaks to native code",
      severity: "error",
      from: { pathNot: "^src/mlx/" },
      to: { path: "^bun:ffi$" },
    },
    {
      name: "no-circular",
      comment: "files that need each other can't be read, or loaded, one by one",
      severity: "error",
      from: {},
      to: { circular: true, via: { pathNot: tensorAndOperations } },
    },
    {
      name: "no-orphans",
      comment: "a file that nothing imports is dead",
      severity: "error",
      from: { orphan: true, path: "^src/", pathNot: [tests, "\\.d\\.ts$"] },
      to: {},
    },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    builtInModules: { add: ["bun", "bun:ffi", "bun:test"] },
  },
};

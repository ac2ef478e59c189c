/** What a model is fine-tuned on: datasets, and batches of them. */
export { type BatchesOptions, type Dataset, iterateBatches, type Sample } from "./batches";
export { type DatasetFacts, datasetFacts } from "./facts";
export { type Datasets, type LoadDataOptions, loadDatasets } from "./load";
export { iteratePacked, type PackingFacts, packingFacts } from "./pack";
export { type DataSettings, splitNames } from "./sources";

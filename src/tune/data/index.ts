/** What a model is fine-tuned on: datasets, and batches of them. */
export { type BatchesOptions, type Dataset, iterateBatches, type Sample } from "./batches";
export { type DataSettings, type Datasets, loadDatasets } from "./load";

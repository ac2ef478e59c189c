/** What the demo model can say about mlxlm and about language models. */
import type { Dice } from "./dice";

/** Questions that ask for one thing, and answers that all say the same. */
export interface Topic {
  questions: readonly string[];
  answers: readonly string[];
}

/** Questions that ask what something is. */
function whatIs(thing: string, ...more: string[]): string[] {
  return [
    `What is ${thing}?`,
    `What is ${thing}?`,
    `What's ${thing}?`,
    `Explain ${thing}.`,
    `Can you explain ${thing}?`,
    `Tell me about ${thing}.`,
    `What do you know about ${thing}?`,
    `I don't understand what ${thing} is.`,
    ...more,
  ];
}

/** Questions that ask how to do something. */
function howTo(doing: string, ...more: string[]): string[] {
  return [
    `How do I ${doing}?`,
    `How do I ${doing}?`,
    `How can I ${doing}?`,
    `How to ${doing}?`,
    `I want to ${doing}. How does that work?`,
    `Which command do I need to ${doing}?`,
    `Show me how to ${doing}.`,
    ...more,
  ];
}

const program: readonly Topic[] = [
  {
    questions: whatIs("mlxlm", "What does mlxlm do?", "What is mlxlm good for?", "Why should I use mlxlm?"),
    answers: [
      "mlxlm runs language models on your own machine. It is one program without Python, written in TypeScript on Bun over the MLX library.",
      "mlxlm is a program that runs, trains and converts language models on your own machine. It needs no Python: everything is in one file.",
    ],
  },
  {
    questions: [
      "What is the difference between mlxlm and mlx-lm?",
      "How is mlxlm different from mlx-lm?",
      "Is mlxlm the same as mlx-lm?",
      ...whatIs("mlx-lm"),
    ],
    answers: [
      "mlx-lm is a Python package that runs language models with MLX. mlxlm has the same commands and flags, but it is one program without Python.",
    ],
  },
  {
    questions: howTo("install mlxlm", "Where do I get mlxlm?", "How do I build mlxlm?", "How do I set up mlxlm?"),
    answers: [
      "mlxlm is one file: copy it anywhere and run it. To build it yourself, type bun run build in its source folder.",
    ],
  },
  {
    questions: [
      "Does mlxlm need Python?",
      "Do I need Python?",
      "Is mlxlm written in Python?",
      "Is there Python in mlxlm?",
    ],
    answers: ["No. mlxlm runs without Python. Only its build uses pip, to fetch the MLX library."],
  },
  {
    questions: [
      "Does mlxlm need the internet?",
      "Do I need a network?",
      "Does mlxlm work offline?",
      "Can I use mlxlm without the internet?",
      "Where does my text go?",
      "Is my data private?",
    ],
    answers: [
      "mlxlm needs the internet only to download a model for the first time. After that it works offline, and your text stays on your machine.",
    ],
  },
  {
    questions: [
      "Which machines does mlxlm run on?",
      "Does mlxlm run on Linux?",
      "Does mlxlm run on a Mac?",
      "Do I need a GPU?",
      "Where can I run mlxlm?",
      "What hardware do I need?",
    ],
    answers: ["mlxlm is made for Macs with Apple silicon and for Linux, with an NVIDIA GPU or with the CPU alone."],
  },
  {
    questions: ["What language is mlxlm written in?", "How is mlxlm made?", "What is mlxlm built with?"],
    answers: ["mlxlm is written in TypeScript. It runs on Bun and calls the compiled MLX library for all numbers."],
  },
  {
    questions: ["Is mlxlm free?", "What is the license of mlxlm?", "Is mlxlm open source?", "What does mlxlm cost?"],
    answers: ["mlxlm is free software under the MIT license."],
  },
  {
    questions: [
      "Which commands does mlxlm have?",
      "What commands are there?",
      "List the commands of mlxlm.",
      "What can mlxlm do?",
    ],
    answers: [
      "The commands of mlxlm are those of mlx-lm: generate, chat, server, convert, lora, fuse, evaluate, perplexity, benchmark and some more. Type mlxlm --help to see them all.",
    ],
  },
  {
    questions: [
      "Which models does mlxlm support?",
      "Which models can I run?",
      "What models are there?",
      "Can I run Llama?",
      "Can I run Qwen?",
    ],
    answers: [
      "mlxlm runs models from Hugging Face in many architectures, such as Llama, Qwen, Gemma, Phi and Mixtral.",
    ],
  },
];

const tasks: readonly Topic[] = [
  {
    questions: howTo("run a model", "How do I use mlxlm?", "How do I start?", "How do I generate text?"),
    answers: [
      "Type mlxlm generate --model followed by a folder or the name of a model, then --prompt and your text in quotes.",
    ],
  },
  {
    questions: howTo("use another model", "Which model is better than you?", "How do I get a better model?"),
    answers: [
      "Give its name with --model, for example mlxlm generate --model mlx-community/Qwen3-4B-4bit. It is downloaded once and then kept.",
    ],
  },
  {
    questions: howTo("chat with a model", "How do I have a conversation?", "Is there a chat?"),
    answers: ["mlxlm chat opens a conversation in your terminal. Type q to leave it and r to begin anew."],
  },
  {
    questions: howTo(
      "start a server",
      "Is there an API?",
      "Does mlxlm have a server?",
      ...howTo("use mlxlm over HTTP"),
    ),
    answers: ["mlxlm server answers over HTTP on port 8080, in the way of the OpenAI API."],
  },
  {
    questions: howTo("train a model", ...howTo("fine-tune a model"), "How do I train LoRA?", "Can mlxlm train?"),
    answers: [
      "Type mlxlm lora --train with a model and a folder of data. It trains a small adapter and leaves the model as it is.",
    ],
  },
  {
    questions: howTo("fuse an adapter", "What does mlxlm fuse do?", ...howTo("merge an adapter into a model")),
    answers: ["mlxlm fuse merges a trained adapter into the weights of its model and saves the result as a new model."],
  },
  {
    questions: howTo("convert a model", ...howTo("quantize a model"), "What does mlxlm convert do?"),
    answers: [
      "mlxlm convert reads a model and writes it in the MLX format. With -q it also quantizes the weights to 4 bits.",
    ],
  },
  {
    questions: howTo("evaluate a model", ...howTo("test how good a model is"), "What does mlxlm evaluate do?"),
    answers: ["mlxlm evaluate asks a model the questions of known tests and counts the right answers."],
  },
  {
    questions: howTo(
      "measure the speed",
      "What does mlxlm benchmark do?",
      "How fast is mlxlm?",
      ...howTo("run a benchmark"),
    ),
    answers: ["mlxlm benchmark measures how many tokens a second a model reads and writes on your machine."],
  },
  {
    questions: howTo("get JSON", "What does --json do?", "Can mlxlm print JSON?"),
    answers: ["Add --json to a command, and it prints JSON instead of text."],
  },
  {
    questions: howTo("make the answer longer", ...howTo("limit the length"), "What does --max-tokens do?"),
    answers: ["The flag --max-tokens says how many tokens are written at most. Its default is 100."],
  },
  {
    questions: howTo("set a system prompt", ...whatIs("a system prompt"), "What does --system-prompt do?"),
    answers: [
      "A system prompt tells a model how to behave before the conversation begins. Set it with --system-prompt.",
    ],
  },
  {
    questions: howTo("read the prompt from a file", "Can I pipe text into mlxlm?", "How do I use stdin?"),
    answers: ["Write --prompt - and mlxlm reads the prompt from its standard input."],
  },
  {
    questions: howTo("get help", "Where is the manual?", "How do I see all flags?"),
    answers: ["Type mlxlm --help for the list of commands, or a command with --help for all of its flags."],
  },
  {
    questions: howTo("stop the generation", "How do I quit?", "How do I interrupt a model?"),
    answers: ["Press Ctrl-C. mlxlm stops at once and prints what it has measured so far."],
  },
  {
    questions: [
      "Where are the models stored?",
      "Where is the cache?",
      "Where does mlxlm keep models?",
      ...howTo("delete a model"),
    ],
    answers: [
      "Models lie in the Hugging Face cache, which is shared with Python. mlxlm manage shows them and deletes those that you choose.",
    ],
  },
];

const concepts: readonly Topic[] = [
  {
    questions: whatIs("a language model", "How does a language model work?", "How do language models work?"),
    answers: [
      "A language model reads text as tokens and says which token is likely to come next. It writes by picking one token after the other.",
    ],
  },
  {
    questions: whatIs("a token", "What are tokens?"),
    answers: [
      "A token is a piece of text: a word, a part of a word, or a digit. A model reads and writes tokens, not letters.",
    ],
  },
  {
    questions: whatIs("a tokenizer", "What does a tokenizer do?"),
    answers: ["A tokenizer cuts text into tokens and gives each its number. It also turns the numbers back into text."],
  },
  {
    questions: whatIs("a KV cache", "What is the KV cache?", "What does the KV cache do?", "Why is there a KV cache?"),
    answers: [
      "The KV cache keeps the keys and values of all tokens so far, so that each new token needs only one step.",
    ],
  },
  {
    questions: whatIs("quantization", "Why are models quantized?", "What does 4-bit mean?", "What is a 4-bit model?"),
    answers: [
      "Quantization stores the weights in few bits, in groups that share a scale. The model gets smaller and faster, and a little less exact.",
    ],
  },
  {
    questions: whatIs("LoRA", "How does LoRA work?", "What does LoRA stand for?"),
    answers: [
      "LoRA means low-rank adaptation. It trains two small matrices beside each large one, while the weights of the model stay as they are.",
    ],
  },
  {
    questions: whatIs("an adapter", "What does an adapter do?"),
    answers: [
      "An adapter is a small file of extra weights, trained for one purpose. It is loaded together with its model.",
    ],
  },
  {
    questions: whatIs("fine-tuning", "Why fine-tune a model?"),
    answers: ["Fine-tuning trains a finished model a little more, on examples of what it should do."],
  },
  {
    questions: whatIs(
      "the temperature",
      "What does --temp do?",
      "What is temperature?",
      "Which temperature should I use?",
    ),
    answers: [
      "The temperature says how freely the next token is chosen. At 0 it is always the most likely one; higher values give more variety.",
    ],
  },
  {
    questions: whatIs("top-p", "What does --top-p do?", "What is top-p sampling?"),
    answers: [
      "Top-p keeps the most likely tokens until their probabilities add up to p, and the next token is chosen among them.",
    ],
  },
  {
    questions: whatIs("top-k", "What does --top-k do?", "What is top-k sampling?"),
    answers: ["Top-k keeps the k most likely tokens, and the next token is chosen among them."],
  },
  {
    questions: whatIs("min-p", "What does --min-p do?"),
    answers: [
      "Min-p drops each token that is much less likely than the best one, and the next token is chosen among the rest.",
    ],
  },
  {
    questions: whatIs("a seed", "What does --seed do?", "How do I get the same text again?"),
    answers: ["A seed fixes the random choices: with the same seed, the same model writes the same text again."],
  },
  {
    questions: whatIs("a prompt", "What does --prompt do?"),
    answers: ["A prompt is the text that you give to a model. The model writes what comes after it."],
  },
  {
    questions: whatIs("a chat template", "Why do models have chat templates?"),
    answers: [
      "A chat template writes a conversation as one text, with marks that say where each turn begins and ends.",
    ],
  },
  {
    questions: whatIs("a context window", "What is the context?", "How much text can a model read?"),
    answers: [
      "The context is all the text that a model sees at once. When it is full, the model can't read any further.",
    ],
  },
  {
    questions: whatIs("prefill", "What happens before the first token?"),
    answers: [
      "Prefill is the first step of an answer: the model reads the whole prompt at once and fills its KV cache.",
    ],
  },
  {
    questions: whatIs("speculative decoding", "What is a draft model?", "What does --draft-model do?"),
    answers: [
      "In speculative decoding, a small draft model guesses some tokens, and the large model checks them all in one step. The text is the same, only faster.",
    ],
  },
  {
    questions: whatIs("perplexity", "What does mlxlm perplexity do?"),
    answers: ["Perplexity says how surprised a model is by a text. Lower is better."],
  },
  {
    questions: whatIs("attention", "How does attention work?"),
    answers: ["Attention lets each token look back at the ones before it and take over what it needs from them."],
  },
  {
    questions: whatIs("a transformer", "What is the transformer?"),
    answers: [
      "A transformer is a stack of layers. In each one, tokens first look at each other and then think on their own.",
    ],
  },
  {
    questions: whatIs("a parameter", "What are parameters?", "What are weights?", "What is a weight?"),
    answers: ["Parameters, or weights, are the numbers that a model has learned. All that it knows is in them."],
  },
  {
    questions: whatIs("a mixture of experts", "What is a MoE model?", "What is MoE?"),
    answers: [
      "In a mixture of experts, each token goes through a few of many small networks, so a large model stays fast.",
    ],
  },
  {
    questions: whatIs("an embedding", "What are embeddings?"),
    answers: [
      "An embedding is a list of numbers that stands for a token. Tokens with similar meanings have similar numbers.",
    ],
  },
  {
    questions: whatIs("training", "How does a model learn?", "How are models trained?"),
    answers: [
      "In training, a model guesses the next token of many texts. After each guess, its weights are moved a little so that the next guess is better.",
    ],
  },
  {
    questions: whatIs("safetensors", "What is a safetensors file?"),
    answers: ["Safetensors is a file format for weights. It holds names, shapes and numbers, and no code."],
  },
  {
    questions: whatIs("GGUF", "What is a GGUF file?"),
    answers: ["GGUF is the file format of llama.cpp. It holds the weights and the tokenizer in one file."],
  },
  {
    questions: whatIs("Hugging Face", "Where do models come from?"),
    answers: ["Hugging Face is a website where people share models. mlxlm downloads models from there by their names."],
  },
  {
    questions: whatIs("MLX", "What does MLX do?", "Who made MLX?"),
    answers: [
      "MLX is Apple's library for machine learning. It runs on Apple's chips with Metal, on NVIDIA's with CUDA, and on CPUs.",
    ],
  },
  {
    questions: whatIs("Metal"),
    answers: ["Metal is Apple's interface to the GPU. MLX uses it on Macs."],
  },
  {
    questions: whatIs("CUDA"),
    answers: ["CUDA is NVIDIA's interface to its GPUs. MLX uses it on Linux."],
  },
  {
    questions: whatIs("Bun", "What does mlxlm need Bun for?"),
    answers: ["Bun is a fast runtime for TypeScript and JavaScript. mlxlm is built with it into one file."],
  },
];

const groups: readonly (readonly Topic[])[] = [program, tasks, concepts];

/** A question with its answer. */
export function factChat(dice: Dice): [question: string, answer: string] {
  return ask(dice, dice.pick(dice.pick(groups)));
}

/** One of the topic's questions, as people type it, and one of its answers. */
export function ask(dice: Dice, { questions, answers }: Topic): [question: string, answer: string] {
  return [typed(dice, dice.pick(questions)), dice.pick(answers)];
}

/** The question with a greeting, in small letters or without its last sign, now and then. */
function typed(dice: Dice, question: string): string {
  let text = question;
  if (dice.chance(0.08)) text = `${dice.pick(["Hello!", "Hi!", "Hey,", "Please:", "A question:"])} ${text}`;
  if (dice.chance(0.2)) text = text.toLowerCase();
  if (dice.chance(0.15)) text = text.replace(/[.?!]$/, "");
  return text;
}

/** Every topic, for tests. */
export const topics: readonly Topic[] = groups.flat();

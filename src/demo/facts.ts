/** What the demo model can say about mlxlm, about itself, and to be polite. */
import type { Dice } from "./dice";

interface Topic {
  questions: readonly string[];
  answers: readonly string[];
}

const topics: readonly Topic[] = [
  {
    questions: ["hello", "Hello!", "Hi", "Hi there!", "Good morning!", "hey", "Hello, who are you?"],
    answers: [
      "Hello! I am the demo model of mlxlm. Ask me for a small sum, a story, or something about mlxlm.",
      "Hello! I am a small demo model. I can add two numbers, tell a short story, and say what mlxlm is.",
    ],
  },
  {
    questions: [
      "Who are you?",
      "What are you?",
      "What is your name?",
      "Are you a language model?",
      "Tell me about yourself.",
    ],
    answers: [
      "I am the demo model of mlxlm: a very small language model, trained by mlxlm itself. I can add two numbers, tell a short story, and answer questions about mlxlm.",
    ],
  },
  {
    questions: ["What can you do?", "Help", "How can you help me?", "What can I ask you?"],
    answers: [
      "I can add two numbers, tell a short story about an animal, and answer questions about mlxlm. For more, load a larger model.",
    ],
  },
  {
    questions: ["What is mlxlm?", "Tell me about mlxlm.", "What does mlxlm do?", "Explain mlxlm."],
    answers: [
      "mlxlm runs language models on your own machine. It is one program without Python, written in TypeScript on Bun over the MLX library.",
    ],
  },
  {
    questions: ["What is MLX?", "Tell me about MLX.", "What does MLX do?"],
    answers: [
      "MLX is an array library for machine learning. It runs on Apple's chips with Metal, on NVIDIA's with CUDA, and on CPUs.",
    ],
  },
  {
    questions: [
      "How do I use mlxlm?",
      "How do I run a model?",
      "How do I generate text?",
      "How can I try another model?",
    ],
    answers: [
      "Type mlxlm generate with --model and --prompt. The model is a folder on your disk or the name of a repo, which is downloaded once.",
    ],
  },
  {
    questions: ["How do I install mlxlm?", "Where do I get mlxlm?", "How can I build mlxlm?"],
    answers: ["mlxlm is one file: copy it and run it. To build it yourself, type bun run build in its folder."],
  },
  {
    questions: ["Does mlxlm need Python?", "Do I need Python?", "Is mlxlm written in Python?"],
    answers: ["No. mlxlm is one program that runs without Python. Only building it fetches the MLX library with pip."],
  },
  {
    questions: ["Does mlxlm need the internet?", "Do I need a network?", "Does it work offline?"],
    answers: ["Only to download a model for the first time. After that, everything stays on your machine."],
  },
  {
    questions: ["What is a language model?", "How does a language model work?", "Explain language models."],
    answers: [
      "A language model reads text as tokens and says which token is likely to come next. It writes by picking one token after the other.",
    ],
  },
  {
    questions: ["What is a token?", "What are tokens?", "Explain tokens."],
    answers: [
      "A token is a piece of text: a word, a part of a word, or a digit. A model reads and writes tokens, not letters.",
    ],
  },
  {
    questions: ["What is a KV cache?", "What does the KV cache do?", "Explain the KV cache."],
    answers: [
      "The KV cache keeps the keys and values of all tokens so far, so that each new token needs only one step.",
    ],
  },
  {
    questions: ["What is quantization?", "Why are models quantized?", "Explain quantization."],
    answers: [
      "Quantization stores the weights in few bits, in groups that share a scale. The model gets smaller and faster, and a little less exact.",
    ],
  },
  {
    questions: ["What is LoRA?", "What is an adapter?", "Explain LoRA."],
    answers: [
      "LoRA trains two small matrices beside each large one. The model learns something new while its own weights stay as they are.",
    ],
  },
  {
    questions: ["What is temperature?", "What does --temp do?", "Explain the temperature."],
    answers: [
      "The temperature says how freely the next token is chosen. At 0 it is always the most likely one; higher values give more variety.",
    ],
  },
  {
    questions: ["What is top-p?", "What does --top-p do?", "Explain top-p sampling."],
    answers: [
      "Top-p sampling keeps the most likely tokens until their probabilities add up to p, and chooses among them.",
    ],
  },
  {
    questions: ["Thank you!", "Thanks", "Thank you very much.", "Great, thanks!"],
    answers: ["You are welcome!", "You are welcome! Ask me more if you like."],
  },
  {
    questions: ["Goodbye", "Bye", "See you!", "Good night!"],
    answers: ["Goodbye! Have a good day.", "Goodbye!"],
  },
  {
    questions: [
      "What is the capital of France?",
      "Who wrote Hamlet?",
      "What is the weather today?",
      "Write a poem about the sea.",
      "What time is it?",
      "How far is the moon?",
      "Who is the president?",
      "Translate this into German.",
      "Why is the sky blue?",
      "What should I eat tonight?",
      "Solve this equation.",
      "Write a Python program.",
    ],
    answers: [
      "I don't know that. I am only a small demo model: I can add two numbers, tell a short story, and talk about mlxlm.",
    ],
  },
];

/** A question with its answer. */
export function fact(dice: Dice): [question: string, answer: string] {
  const topic = dice.pick(topics);
  return [dice.pick(topic.questions), dice.pick(topic.answers)];
}

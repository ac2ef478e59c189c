"""Conversations with the demo model: every answer from the whole conversation and an empty cache, greedily."""

import json
from pathlib import Path

from mlx_lm import load, stream_generate

ROOT = Path(__file__).resolve().parents[2]

CONVERSATIONS = [
    {"system": None, "questions": ["What is 27 + 58?", "And 11 + 12?", "Tell me a story about a fox.", "hello"]},
    {"system": "You are a friendly fox.", "questions": ["hello", "What is 12 + 5?", "What is\n31 + 17?"]},
]

model, tokenizer = load(str(ROOT / "src/demo/model"))


def converse(system, questions):
    messages = [] if system is None else [{"role": "system", "content": system}]
    answers = []
    for question in questions:
        messages.append({"role": "user", "content": question})
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        responses = list(stream_generate(model, tokenizer, prompt, max_tokens=256))
        answers.append("".join(response.text for response in responses))
        messages.append({"role": "assistant", "content": answers[-1]})
    return {"system": system, "turns": [{"question": q, "answer": a} for q, a in zip(questions, answers)]}


conversations = [converse(**conversation) for conversation in CONVERSATIONS]
(ROOT / "test/fixtures/chat.json").write_text(json.dumps(conversations, indent=1) + "\n")

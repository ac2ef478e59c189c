"""Trains the demo model's byte-level BPE on text from stdin and writes a tokenizer.json.

The `tokenizers` package's own trainer; its JavaScript binding has no access to the trainer's options.
"""

import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

tokenizer = Tokenizer(models.BPE())
# Digits stand alone, so that a sum is learned digit by digit.
tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)
tokenizer.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(
    vocab_size=2048,
    special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
)
tokenizer.train_from_iterator(sys.stdin, trainer)
tokenizer.save(sys.argv[1])

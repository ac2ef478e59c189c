"""mlx-lm's side of evaluate.ts: likelihoods of the requests in a file, by its own adapter. Prints seconds and answers."""

import contextlib
import io
import json
import sys
import time
from types import SimpleNamespace

from mlx_lm.evaluate import MLXLM

model, path = sys.argv[1:]
requests = [SimpleNamespace(args=tuple(one)) for one in json.load(open(path))]
with contextlib.redirect_stderr(io.StringIO()):
    lm = MLXLM(model, use_chat_template=False)
    lm.loglikelihood(requests[:2])
    began = time.perf_counter()
    answers = lm.loglikelihood(requests)
    seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "answers": [score for score, _ in answers]}))

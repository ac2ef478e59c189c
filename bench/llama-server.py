"""llama.cpp's server, as serve.ts measures it: python llama-server.py GGUF PORT CLIENTS TOKENS_EACH. Needs xllamacpp."""

import sys
import threading

import xllamacpp

path, port, clients, each = sys.argv[1], *map(int, sys.argv[2:5])
params = xllamacpp.CommonParams()
params.model.path = path
params.hostnames = ["127.0.0.1"]
params.port = port
params.n_parallel = clients
params.n_ctx = clients * each
params.cpuparams.n_threads = 2
params.cpuparams_batch.n_threads = 2
params.n_gpu_layers = 0
params.verbosity = 1
server = xllamacpp.Server(params)
threading.Event().wait()

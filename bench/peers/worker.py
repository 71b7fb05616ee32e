"""The loop of a worker of bench_peers: an engine of other people in its own environment, told what to compute by lines.

    prefill TOKENS SEED       a prompt alone, to its first token: "WALL CPU" in seconds
    decode BATCH STEPS SEED   BATCH prompts of 16 tokens, then STEPS tokens of each at once: "WALL CPU" of a step
    greedy TOKENS COUNT SEED  the COUNT tokens that follow a prompt

The first line that it prints says what it is. Prompts are the same numbers in every worker (`peers_worker.cc` has them too).
"""
import contextlib
import os
import sys
import time

DECODE_PROMPT = 16
MAX_TOKENS = 2048  # of a prompt
MAX_BATCH = 16


def prompt(tokens, seed, vocab_size):
    ids, state = [], seed
    for _ in range(tokens):
        state = (state * 1103515245 + 12345) % (1 << 31)
        ids.append((state >> 8) % vocab_size)
    return ids


def batch_prompts(batch, seed, vocab_size):
    return [prompt(DECODE_PROMPT, seed * MAX_BATCH + i, vocab_size) for i in range(batch)]


class Watch:
    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def line(self, parts=1):
        return f"{(time.perf_counter() - self.wall) / parts:.9f} {(time.process_time() - self.cpu) / parts:.9f}"


def serve(start):
    """start() gives the engine: about, vocab_size, prefill(ids), decode(prompts, steps) -> Watch line, greedy(ids, count)."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes elsewhere
    with contextlib.redirect_stdout(sys.stderr):
        engine = start()
        print(engine.about, file=answers)
        for line in sys.stdin:
            what, *numbers = line.split()
            numbers = [int(number) for number in numbers]
            if what == "prefill":
                ids = prompt(*numbers, engine.vocab_size)
                watch = Watch()
                engine.prefill(ids)
                print(watch.line(), file=answers)
            elif what == "decode":
                batch, steps, seed = numbers
                print(engine.decode(batch_prompts(batch, seed, engine.vocab_size), steps), file=answers)
            elif what == "greedy":
                tokens, count, seed = numbers
                print(*engine.greedy(prompt(tokens, seed, engine.vocab_size), count), file=answers)

"""`wideload eval` beside what `wideload logits` and plain sums give, on one rank and on several."""
import json
import math
import struct
import unittest

from cli_support import EMBEDDED, CliTest, run

TEXT = "Once upon a time there was a cat. It sat on the mat,\nand it was happy. " * 4
QUESTIONS = [{"context": "The cat sat on the", "choices": ["mat", "moonlight in June"], "gold": 0},
             {"context": "Once upon a", "choices": ["time", "banana split", "x"], "gold": 0},
             {"context": "Two and two is ", "choices": ["four", "a"], "gold": 1},
             {"context": "", "choices": ["Once", "Zebra"], "gold": 0}]
# Sums of some hundred float logits' log probabilities, in double on both sides.
MAX_DIFFERENCE = 1e-6


class Eval(CliTest):
    def good(self, *args, **more):
        done = run(*args, "--threads", 1, **more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def ids(self, text):
        return json.loads(run("tokenize", "-m", EMBEDDED, stdin=json.dumps([text])).stdout)[0]

    def log_probabilities(self, predictions):
        """The sum of each (ids, first, targets), from the file of `wideload logits`."""
        path = self.folder / "logits"
        self.good("logits", "--input-ids", "-", "--output", path, stdin=json.dumps([p[0] for p in predictions]))
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8:8 + size])
        sums = []
        for i, (_, first, targets) in enumerate(predictions):
            tensor = header[f"logits.{i}"]
            width = tensor["shape"][1]
            total = 0
            for k, target in enumerate(targets):
                begin = 8 + size + tensor["data_offsets"][0] + 4 * width * (first + k)
                row = struct.unpack(f"<{width}f", data[begin:begin + 4 * width])
                top = max(row)
                total += row[target] - top - math.log(sum(math.exp(x - top) for x in row))
            sums.append(total)
        return sums

    def samples(self, *args):
        path = self.folder / "samples.jsonl"
        path.unlink(missing_ok=True)
        results = json.loads(self.good("eval", *args, "--json", "--samples", path))
        return results, [json.loads(line) for line in path.read_text().splitlines()]

    def eos(self):
        config = json.loads((EMBEDDED / "config.json").read_text())
        eos = config["eos_token_id"]
        return eos[0] if isinstance(eos, list) else eos

    def test_perplexity_is_that_of_the_logits(self):
        ids = self.ids(TEXT)
        self.assertGreater(len(ids), 64)
        windows = [([self.eos()] + ids[:63], 0, ids[:64])]
        for begin in range(64, len(ids), 64):
            end = min(begin + 64, len(ids))
            windows.append((ids[end - 65:end - 1], 64 - (end - begin), ids[begin:end]))
        expected = sum(self.log_probabilities(windows))
        for layout in ([], ["--ep", "2", "--num-slots", "72", "--rebalance", "random:3"], ["--tp", "2"]):
            results, rows = self.samples("perplexity", "-i", self.path("text.txt", TEXT), "--max-seq-len", "64", *layout)
            self.assertAlmostEqual(results["loglikelihood"], expected, delta=MAX_DIFFERENCE)
            self.assertEqual((results["tokens"], results["documents"], len(rows)), (len(ids), 1, 1))
            self.assertAlmostEqual(results["perplexity"], math.exp(-expected / len(ids)))
            self.assertAlmostEqual(results["byte_perplexity"], math.exp(-expected / len(TEXT)))
            self.assertAlmostEqual(results["bits_per_byte"], -expected / len(TEXT) / math.log(2))
        documents = self.rows("texts.jsonl", [{"text": TEXT}, {"text": "A dog."}])
        results, rows = self.samples("perplexity", "-i", documents)
        self.assertEqual([row["bytes"] for row in rows], [len(TEXT), 6])
        self.assertAlmostEqual(results["loglikelihood"], sum(row["loglikelihood"] for row in rows))

    def test_multiple_choice_is_that_of_the_logits(self):
        predictions = []
        for question in QUESTIONS:
            context = question["context"].rstrip()
            spaces = question["context"][len(context):]
            before = self.ids(context) if context else []
            for choice in question["choices"]:
                whole = self.ids(context + spaces + " " + choice)
                targets = whole[len(before):]
                read = ([] if before else [self.eos()]) + whole
                predictions.append((read[:-1], len(read) - 1 - len(targets), targets))
        expected = self.log_probabilities(predictions)
        task = self.rows("task.jsonl", QUESTIONS)
        results, rows = self.samples("multiple-choice", "-i", task)
        found = [value for row in rows for value in row["loglikelihoods"]]
        for value, other in zip(found, expected):
            self.assertAlmostEqual(value, other, delta=MAX_DIFFERENCE)
        for question, row in zip(QUESTIONS, rows):
            values = row["loglikelihoods"]
            by_length = [value / len(choice) for value, choice in zip(values, question["choices"])]
            self.assertEqual(row["acc"], int(values.index(max(values)) == question["gold"]))
            self.assertEqual(row["acc_norm"], int(by_length.index(max(by_length)) == question["gold"]))
        self.assertEqual(results["samples"], 4)
        self.assertAlmostEqual(results["acc"], sum(row["acc"] for row in rows) / 4)
        self.assertEqual(self.samples("multiple-choice", "-i", task, "--ep", "2"), (results, rows))
        self.assertEqual(self.samples("multiple-choice", "-i", task, "--limit", "1")[1], rows[:1])

    def test_what_cannot_be_used_is_refused_by_name(self):
        for kind, name, content, said in (
                ("perplexity", "empty.txt", "", "no text"), ("perplexity", "a.jsonl", "{}", "line 1"),
                ("multiple-choice", "b.jsonl", '{"context": "a", "choices": ["b"], "gold": 0}', "choices"),
                ("multiple-choice", "c.jsonl", "no JSON", "c.jsonl line 1")):
            done = run("eval", kind, "-i", self.path(name, content))
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(said, done.stderr)
            self.assertIn(name, done.stderr)


if __name__ == "__main__":
    unittest.main()

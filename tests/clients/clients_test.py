"""Clients that are not ours against `wideload serve`: ./dev test-clients. One that is not installed is skipped with a line."""
import json
import math
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
from typing import Literal, Optional

import jsonschema
import openai
import pydantic

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "cli"))
from cli_support import EMBEDDED, PROGRAM  # noqa: E402
from serve_support import ServeTest  # noqa: E402

CHAT = [{"role": "user", "content": "Who are you?"}]
TOOL = {"type": "function", "function": {"name": "look", "description": "looks", "parameters": {
    "type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}}}
TIMEOUT_S = 300
# Log probabilities are computed in fp32 by the server and in double here.
MAX_LOGPROB_DIFFERENCE = 1e-4


def run(*command, data=None):
    """In a folder that is gone after it: schemathesis keeps what it has seen."""
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run([str(c) for c in command], input=data, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=folder)


class OpenAi(ServeTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = openai.OpenAI(base_url=f"http://localhost:{cls.server.port}/v1", api_key="none")
        cls.addClassCleanup(cls.client.close)
        cls.model = cls.client.models.list().data[0].id

    def chat(self, **options):
        return self.client.chat.completions.create(model=self.model, messages=CHAT, max_tokens=20, temperature=0, **options)

    def test_a_stream_has_the_text_of_the_whole_answer(self):
        whole = self.chat()
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        self.assertEqual("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), whole.choices[0].message.content)
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)

    def test_completions_and_responses(self):
        text = self.client.completions.create(model=self.model, prompt="Once", max_tokens=4, temperature=0).choices[0]
        self.assertEqual(text.finish_reason, "length")
        answer = self.client.responses.create(model=self.model, input="Who are you?", max_output_tokens=20, temperature=0)
        self.assertEqual(answer.output_text, self.chat().choices[0].message.content)

    def test_logprobs(self):
        content = self.chat(logprobs=True, top_logprobs=2).choices[0].logprobs.content
        for token in content:
            self.assertEqual(len(token.top_logprobs), 2)
            self.assertEqual(token.top_logprobs[0].logprob, token.logprob)

    def test_tools_are_taken_or_refused_by_name(self):
        try:
            self.assertIsNotNone(self.chat(tools=[TOOL]).choices[0].finish_reason)
        except openai.BadRequestError as refusal:
            self.assertEqual(refusal.param, "tools")

    def test_errors_are_those_of_the_library(self):
        with self.assertRaises(openai.NotFoundError):
            self.client.chat.completions.create(model="another", messages=CHAT)
        with self.assertRaises(openai.BadRequestError) as refusal:
            self.chat(top_p=7)
        self.assertEqual(refusal.exception.param, "top_p")


class Pet(pydantic.BaseModel):
    kind: Literal["cat", "dog"]
    legs: int = pydantic.Field(ge=0, le=8)
    names: list[Literal["Tom", "Rex"]] = pydantic.Field(max_length=2)
    born: Optional[bool]


# What ends soon, though a small model writes it.
SCHEMAS = [
    Pet.model_json_schema(),
    {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "string", "maxLength": 5}}, "required": ["b"]},
    {"type": "object", "additionalProperties": {"type": "integer", "exclusiveMinimum": -3, "maximum": 40},
     "properties": {"a\"b": {"const": None}}, "required": ["a\"b"]},
    {"oneOf": [{"type": "string", "pattern": "^[a-f0-9]{1,6}$"}, {"type": "array", "items": {"enum": [1, "x"]}, "maxItems": 3}]},
    {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {
        "v": {"type": "boolean"}, "n": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/n"}]}}, "required": ["v", "n"],
        "additionalProperties": False}}},
    {"type": "array", "prefixItems": [{"type": "string", "format": "date"}, {"type": "string", "format": "ipv4"}], "items": False,
     "minItems": 2},
    {"type": "string", "format": "email"}, {"type": "string", "format": "date-time"}, {"type": ["integer", "null"]},
]


class Schemas(ServeTest):
    def test_every_text_satisfies_its_schema(self):
        for schema in SCHEMAS:
            validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
            num_whole = 0
            for seed in range(8):
                choice = self.server.post("/v1/completions", prompt="Once", max_tokens=200, temperature=1 + seed / 2, seed=seed,
                                          guided_json=schema)[1]["choices"][0]
                if choice["finish_reason"] == "stop":
                    num_whole += 1
                    validator.validate(json.loads(choice["text"]))
            self.assertGreater(num_whole, 0, schema)

    def test_a_class_of_pydantic_is_filled(self):
        with openai.OpenAI(base_url=f"http://localhost:{self.server.port}/v1", api_key="none") as client:
            for seed in range(4):
                answer = client.chat.completions.parse(model=self.server.model, messages=CHAT, response_format=Pet, max_tokens=300,
                                                       temperature=1, seed=seed)
                self.assertIsInstance(answer.choices[0].message.parsed, Pet)


class LogLikelihoods(ServeTest):
    """With the fields that lm-eval's local-completions sends."""

    def test_they_are_those_of_the_logits(self):
        ids = self.server.post("/tokenize", prompt="Once upon a time there was a cat.")[1]["tokens"]
        told = self.server.post("/v1/completions", prompt=[ids], echo=True, logprobs=1, max_tokens=1, temperature=0,
                                seed=1234)[1]["choices"][0]["logprobs"]["token_logprobs"][:len(ids)]
        with tempfile.TemporaryDirectory() as folder:
            made = run(PROGRAM, "logits", "--input-ids", "-", "--output", f"{folder}/logits", data=json.dumps([ids]))
            self.assertEqual(made.returncode, 0, made.stderr)
            data = pathlib.Path(f"{folder}/logits").read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        tensor = json.loads(data[8:8 + size])["logits.0"]
        width = tensor["shape"][1]
        for position, token in enumerate(ids[1:]):
            begin = 8 + size + tensor["data_offsets"][0] + 4 * width * position
            row = struct.unpack(f"<{width}f", data[begin:begin + 4 * width])
            top = max(row)
            expected = row[token] - top - math.log(sum(math.exp(x - top) for x in row))
            self.assertLess(abs(told[position + 1] - expected), MAX_LOGPROB_DIFFERENCE, position)


QUESTIONS = [{"context": "The cat sat on the", "choices": ["mat", "moonlight in June"], "gold": 0},
             {"context": "Once upon a", "choices": ["time", "banana split", "x"], "gold": 0},
             {"context": "Two and two is", "choices": ["four", "a"], "gold": 1}]
# A task of lm-eval on a local file.
TASK = """task: local_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""


class LmEval(ServeTest):
    def test_its_figures_are_those_of_wideload_eval(self):
        program = pathlib.Path("build/clients/lm-eval/bin/lm_eval").resolve()
        if not program.exists():
            self.skipTest("lm-eval is not here")
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            (path / "task.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
            (path / "task.yaml").write_text(TASK.format(file=path / "task.jsonl"))
            env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": folder}
            url = f"http://localhost:{self.server.port}/v1/completions"
            made = subprocess.run([program, "--model", "local-completions", "--tasks", "local_choices", "--include_path", path,
                                   "--model_args", f"model={self.server.model},base_url={url},num_concurrent=1,"
                                   f"tokenizer_backend=huggingface,tokenizer={EMBEDDED}",
                                   "--output_path", path / "out", "--log_samples"],
                                  env=env, capture_output=True, text=True, timeout=TIMEOUT_S)
            self.assertEqual(made.returncode, 0, made.stderr[-4000:])
            results = json.loads(next((path / "out").rglob("results*.json")).read_text())["results"]["local_choices"]
            samples = [json.loads(line) for line in next((path / "out").rglob("samples*.jsonl")).read_text().splitlines()]
            own = run(PROGRAM, "eval", "multiple-choice", "-i", path / "task.jsonl", "--json", "--samples", path / "own.jsonl")
            self.assertEqual(own.returncode, 0, own.stderr)
            rows = [json.loads(line) for line in (path / "own.jsonl").read_text().splitlines()]
        for name in ("acc", "acc_norm"):
            self.assertAlmostEqual(results[f"{name},none"], json.loads(own.stdout)[name])
            self.assertAlmostEqual(results[f"{name}_stderr,none"], json.loads(own.stdout)[f"{name}_stderr"])
        for sample in samples:
            found = [float(answer[0]) for answer in sample["filtered_resps"]]
            for value, expected in zip(found, rows[sample["doc_id"]]["loglikelihoods"], strict=True):
                self.assertLess(abs(value - expected), MAX_LOGPROB_DIFFERENCE * 10)  # of some tokens together


class Loads(ServeTest):
    """What clients that measure servers count is what the server has counted."""
    NUM_REQUESTS = 20

    def measure(self, name, *arguments, env=None):
        """(requests, tokens of prompts, generated tokens) that the server has counted more after a run of the program in its venv."""
        program = pathlib.Path(f"build/clients/{name}/bin/{name}").resolve()
        if not program.exists():
            self.skipTest(f"{name} is not here")
        names = ("request_success_total", "prompt_tokens_total", "generation_tokens_total")
        before = [self.server.metric(n) for n in names]
        made = subprocess.run([program, *map(str, arguments)], env={**os.environ, **(env or {})}, capture_output=True, text=True,
                              timeout=TIMEOUT_S)
        self.assertEqual(made.returncode, 0, (made.stdout + made.stderr)[-4000:])
        self.server.wait_idle()
        return [self.server.metric(n) - b for n, b in zip(names, before)]

    def url(self):
        return f"http://localhost:{self.server.port}"

    def test_guidellm(self):
        with tempfile.TemporaryDirectory() as folder:
            counted = self.measure(
                "guidellm", "run", "--backend", f"kind=openai_http,target={self.url()},model={self.server.model}", "--profile",
                "kind=concurrent,streams=4", "--constraint", f"kind=max_requests,count={self.NUM_REQUESTS}", "--tokenizer",
                f"kind=huggingface_auto,model={EMBEDDED}", "--data", "kind=synthetic_text,prompt_tokens=16,output_tokens=8", "--output",
                f"kind=json,path={folder}/report.json", "--disable-console", env={"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
            metrics = json.loads(pathlib.Path(folder, "report.json").read_text())["benchmarks"][0]["metrics"]
        self.assertEqual(metrics["request_totals"], {"successful": self.NUM_REQUESTS, "errored": 0, "incomplete": 0,
                                                     "total": self.NUM_REQUESTS})
        told = [metrics[f"{kind}_token_count"]["successful"]["total_sum"] for kind in ("prompt", "output")]
        self.assertEqual([self.NUM_REQUESTS, *told], counted)

    def test_aiperf(self):
        with tempfile.TemporaryDirectory() as folder:
            counted = self.measure(
                "aiperf", "profile", "--model-names", self.server.model, "--url", self.url(), "--endpoint-type", "completions", "--streaming",
                "--tokenizer", EMBEDDED, "--concurrency", 4, "--request-count", self.NUM_REQUESTS, "--synthetic-input-tokens-mean", 16,
                "--synthetic-input-tokens-stddev", 0, "--output-tokens-mean", 8, "--extra-inputs", "ignore_eos:true", "--output-artifact-dir",
                folder, "--use-server-token-count", "--ui", "none")
            report = json.loads(pathlib.Path(folder, "profile_export_aiperf.json").read_text())
        told = [report[name]["avg"] for name in ("request_count", "total_usage_prompt_tokens", "total_output_tokens")]
        self.assertEqual(told, counted)


class Tools(ServeTest):
    FLAGS = ("--request-timeout", "1", "--max-seq-len", "64")

    def url(self, path):
        return f"http://localhost:{self.server.port}{path}"

    def tool(self, name):
        path = shutil.which(name) or shutil.which(name, path=pathlib.Path(sys.executable).parent)
        return path or self.skipTest(f"{name} is not here")

    def test_curl_in_every_dialect(self):
        curl = self.tool("curl")
        body = json.dumps({"prompt": "Once", "max_tokens": 3, "temperature": 0})
        texts = set()
        for options in ([], ["--http1.0"], ["-H", "Expect: 100-continue"], ["-H", "Transfer-Encoding: chunked"]):
            answer = run(curl, "-sS", "--fail", *options, "-d", body, self.url("/v1/completions"))
            self.assertEqual(answer.returncode, 0, answer.stderr)
            texts.add(json.loads(answer.stdout)["choices"][0]["text"])
        self.assertEqual(len(texts), 1)
        again = run(curl, "-sSv", self.url("/health"), self.url("/health"))
        self.assertIn("Re-using existing connection", again.stderr)

    def test_wrk_sees_no_error(self):
        made = run(self.tool("wrk"), "-t1", "-c16", "-d2s", self.url("/health"))
        self.assertEqual(made.returncode, 0, made.stderr)
        self.assertNotRegex(made.stdout, "Socket errors|Non-2xx")

    def test_promtool_has_no_complaint(self):
        text = self.server.ask("GET", "/metrics")[2].decode()
        checked = run(self.tool("promtool"), "check", "metrics", data=text)
        self.assertEqual((checked.returncode, checked.stderr), (0, ""))

    def test_schemathesis_finds_nothing(self):
        made = run(self.tool("st"), "run", self.url("/openapi.json"), "--max-examples", "5", "--phases", "fuzzing",
                   "--checks", "not_a_server_error,content_type_conformance,response_schema_conformance", "--seed", "1",
                   "--exclude-path", "/health", "--no-color")
        self.assertEqual(made.returncode, 0, made.stdout[-6000:])


if __name__ == "__main__":
    unittest.main()

"""`wideload serve` with forms that the text must have: response_format, guided_*, forced tool_choice; over processes, too."""
import json
import os
import pathlib
import re
import tempfile
import unittest

from cli_support import PROGRAM, CliTest, run
from serve_support import Server, ServeTest

MPIRUN = os.environ.get("WIDELOAD_MPIRUN", "")
PROMPT = "Once upon a time"
CHAT = [{"role": "user", "content": "Who are you?"}]

SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["good", "bad", "so\u00a0so"]},
        "age": {"type": "integer", "minimum": 1, "maximum": 120},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 6}, "minItems": 1, "maxItems": 3},
        "when": {"anyOf": [{"type": "string", "pattern": "^20[0-9]{2}$"}, {"type": "null"}]},
        "self": {"$ref": "#/$defs/pair"},
        "extra": {"type": "boolean"},
    },
    "required": ["mood", "age", "tags", "when", "self"],
    "additionalProperties": False,
    "$defs": {"pair": {"type": "array", "prefixItems": [{"type": "integer", "maximum": 9, "minimum": 0}, {"type": "boolean"}]}},
}


def is_good(value):
    """Whether SCHEMA allows it."""
    return (list(value) in (SCHEMA["required"], [*SCHEMA["required"], "extra"]) and
            value["mood"] in SCHEMA["properties"]["mood"]["enum"] and
            type(value["age"]) is int and 1 <= value["age"] <= 120 and
            1 <= len(value["tags"]) <= 3 and all(isinstance(t, str) and len(t) <= 6 for t in value["tags"]) and
            (value["when"] is None or re.fullmatch("20[0-9]{2}", value["when"])) and
            type(value["self"][0]) is int and 0 <= value["self"][0] <= 9 and type(value["self"][1]) is bool and
            len(value["self"]) == 2 and type(value.get("extra", True)) is bool)


AS_SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}}


class Forms(ServeTest):
    def check(self, text, finish_reason):
        self.assertEqual(finish_reason, "stop", text)
        self.assertTrue(is_good(json.loads(text)), text)

    def test_json_of_a_schema(self):
        for seed in range(6):
            status, body = self.server.post("/v1/completions", prompt=PROMPT, max_tokens=400, temperature=1.5, seed=seed, **AS_SCHEMA)
            self.assertEqual(status, 200, body)
            self.check(body["choices"][0]["text"], body["choices"][0]["finish_reason"])

    def test_every_choice_and_every_stream_has_it(self):
        fields = {"messages": CHAT, "max_tokens": 400, "temperature": 1, "seed": 3, "n": 3, **AS_SCHEMA}
        choices = self.server.post("/v1/chat/completions", **fields)[1]["choices"]
        texts = [choice["message"]["content"] for choice in choices]
        for choice in choices:
            self.check(choice["message"]["content"], choice["finish_reason"])
        self.assertGreater(len(set(texts)), 1)
        streamed = ["", "", ""]
        for event in self.server.events("/v1/chat/completions", **fields):
            for choice in event["choices"]:
                streamed[choice["index"]] += choice["delta"].get("content", "")
        self.assertEqual(streamed, texts)

    def test_the_same_in_the_words_of_others(self):
        fields = {"prompt": PROMPT, "max_tokens": 400, "temperature": 1, "seed": 8}
        wanted = self.server.post("/v1/completions", **fields, **AS_SCHEMA)[1]["choices"][0]["text"]
        for form in ({"guided_json": SCHEMA}, {"guided_json": json.dumps(SCHEMA)}, {"structured_outputs": {"json": SCHEMA}}):
            self.assertEqual(self.server.post("/v1/completions", **fields, **form)[1]["choices"][0]["text"], wanted)
        status, body = self.server.post("/v1/responses", input="x", max_output_tokens=400, seed=8,
                                        text={"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}})
        self.assertEqual((status, body["status"]), (200, "completed"), body)
        self.check(body["output"][0]["content"][0]["text"], "stop")

    def test_generate_has_the_same(self):
        schema = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) / "schema.json"
        schema.write_text(json.dumps(SCHEMA))
        command = ["generate", "-p", PROMPT, "-n", 400, "--temperature", 1, "--seed", 6, "--json-schema", schema, "--json"]
        told = json.loads(run(*command).stdout)
        self.assertEqual(json.loads(run(*command, "--pp", 2, "--ep", 2).stdout)["text"], told["text"])
        self.check(told["text"], told["finish_reason"])
        fields = {"prompt": PROMPT, "max_tokens": 400, "temperature": 1, "seed": 6, **AS_SCHEMA}
        self.assertEqual(self.server.post("/v1/completions", **fields)[1]["choices"][0]["text"], told["text"])
        chat = run("chat", "-n", 400, "--temperature", 1, "--seed", 6, "--json-schema", schema, stdin="Hi\nAgain\n")
        first, end = json.JSONDecoder().raw_decode(chat.stdout)  # there may be line ends in it
        self.assertTrue(is_good(first) and is_good(json.loads(chat.stdout[end:])), chat.stdout)
        schema.write_text('{"not": {}}')
        for command in (["generate", "-p", PROMPT], ["chat"]):
            done = run(*command, "--json-schema", schema)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("/not is not supported", done.stderr)

    def test_choices_and_patterns(self):
        fields = {"prompt": PROMPT, "max_tokens": 40, "temperature": 1, "ignore_eos": True, "min_tokens": 30}
        for seed in range(4):
            for form, wanted in (({"guided_choice": ["red", "redder", "blue"]}, "red|redder|blue"),
                                 ({"guided_regex": r"[a-c]{4}-(?:yes|no)"}, r"[a-c]{4}-(?:yes|no)")):
                choice = self.server.post("/v1/completions", **fields, seed=seed, **form)[1]["choices"][0]
                if choice["text"] != "red":  # it may go on, and the end is forbidden
                    self.assertEqual(choice["finish_reason"], "stop")
                self.assertRegex(choice["text"], f"^(?:{wanted})$")

    def test_any_object_and_the_length(self):
        for seed in range(4):
            choice = self.server.post("/v1/chat/completions", messages=CHAT, max_tokens=60, temperature=1, seed=seed,
                                      response_format={"type": "json_object"})[1]["choices"][0]
            self.assertTrue(choice["message"]["content"].startswith("{"))
            if choice["finish_reason"] == "stop":
                self.assertIsInstance(json.loads(choice["message"]["content"]), dict)
        cut = self.server.post("/v1/completions", prompt=PROMPT, max_tokens=3, **AS_SCHEMA)[1]["choices"][0]
        self.assertEqual(cut["finish_reason"], "length")

    def test_logprobs_are_the_models_own(self):
        choice = self.server.post("/v1/completions", prompt=PROMPT, max_tokens=1, temperature=0, logprobs=2,
                                  guided_choice=["zebra"])[1]["choices"][0]
        self.assertTrue("zebra".startswith(choice["text"]))
        likeliest = choice["logprobs"]["top_logprobs"][0]
        self.assertGreater(max(likeliest.values()), choice["logprobs"]["token_logprobs"][0])

    def test_what_is_not_supported_is_named(self):
        for schema, pointer in (({"type": "object", "properties": {"a": {"not": {}}}}, "/properties/a/not"),
                                ({"$ref": "#"}, "refers to itself"), ({"enum": []}, "/enum")):
            error = self.refusal(400, "response_format", "/v1/chat/completions", messages=CHAT,
                                 response_format={"type": "json_schema", "json_schema": {"schema": schema}})
            self.assertIn(pointer, error["message"])
        self.refusal(400, "tool_choice", "/v1/chat/completions", messages=CHAT, tool_choice="required",
                     tools=[{"type": "function", "function": {"name": "f"}}])  # the template knows no calls
        self.refusal(400, "guided_regex", "/v1/completions", prompt=PROMPT, guided_regex="(?=x)")


TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {
             "type": "object", "properties": {"unit": {"type": "string", "enum": ["C", "F"]}, "days": {"type": "integer", "minimum": 1,
                                                                                                      "maximum": 9}},
             "required": ["unit", "days"]}}},
         {"type": "function", "function": {"name": "wait", "parameters": {"type": "object", "properties": {}}}}]
# What stands in a template and shows the form.
TEMPLATES = {
    "tagged": "{% if tools %}<tool_call>{% endif %}{{ messages[0].content }}",
    "glm": "{% if tools %}<tool_call><arg_key>{% endif %}{{ messages[0].content }}",
    "deepseek": "{% if tools %}<｜tool▁call▁begin｜>{% endif %}{{ messages[0].content }}",
    "kimi": "{% if tools %}<|tool_call_begin|>{% endif %}{{ messages[0].content }}",
    "llama": '{% if tools %}"parameters": dictionary of argument name{% endif %}{{ messages[0].content }}',
    "harmony": "{# <|channel|><|message|> #}{{ messages[0].content }}",
}
LOOK = {"type": "function", "function": {"name": "look"}}


class Calls(CliTest):
    def check(self, call):
        name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
        self.assertIn(name, ("look", "wait"))
        if name == "look":
            self.assertIn(arguments["unit"], ("C", "F"))
            self.assertIn(arguments["days"], range(1, 10))

    def test_a_forced_call_is_made_in_every_form(self):
        for name, template in TEMPLATES.items():
            with self.subTest(name):
                server = Server("--chat-template", self.path(f"{name}.jinja", template))
                self.addCleanup(server.end)
                for tool_choice in (LOOK, "required"):
                    calls = []
                    for seed in range(6):
                        status, body = server.post("/v1/chat/completions", messages=CHAT, max_tokens=250, temperature=1, seed=seed,
                                                   tools=TOOLS, tool_choice=tool_choice)
                        self.assertEqual(status, 200, body)
                        choice = body["choices"][0]
                        found = choice["message"].get("tool_calls", [])
                        calls += found
                        if choice["finish_reason"] != "length":  # it thinks still, or one call more has begun
                            self.assertIsNone(choice["message"]["content"], body)
                            self.assertGreater(len(found), 0, body)
                            if tool_choice == LOOK:
                                self.assertEqual([call["function"]["name"] for call in found], ["look"])
                    for call in calls:
                        self.check(call)
                    if (name, tool_choice) != ("llama", "required"):  # calls without end are text there
                        self.assertGreater(len(calls), 0)
                server.end()

    def test_thoughts_come_first(self):
        server = Server("--chat-template", self.path("t.jinja", "{{ messages[0].content }}<think>{# </think> #}"))
        self.addCleanup(server.end)
        # What it thinks ends at once: the model is made to.
        ids = server.post("/tokenize", prompt="</think>", add_special_tokens=False)[1]["tokens"]
        choice = server.post("/v1/chat/completions", messages=CHAT, max_tokens=400, temperature=0,
                             logit_bias={str(i): 60 for i in ids}, **AS_SCHEMA)[1]["choices"][0]
        server.end()
        if choice["finish_reason"] == "stop":
            self.assertTrue(is_good(json.loads(choice["message"]["content"])), choice)
        else:
            self.assertTrue(choice["message"]["reasoning_content"], choice)


@unittest.skipUnless(MPIRUN, "no mpirun")
class Processes(CliTest):
    def test_ranks_of_other_processes_choose_the_same(self):
        texts = []
        for command in ((str(PROGRAM),), (MPIRUN, "-n", "2", str(PROGRAM))):
            env = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                   "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none"}
            server = Server("--ep", "2", command=command, env=env)
            self.addCleanup(server.end)
            body = server.post("/v1/completions", prompt=[PROMPT, "The"], max_tokens=400, temperature=1, seed=4, n=2, **AS_SCHEMA)[1]
            texts.append([choice["text"] for choice in body["choices"]])
            server.end()
        self.assertEqual(texts[0], texts[1])
        for text in texts[0]:
            self.assertTrue(is_good(json.loads(text)), text)


if __name__ == "__main__":
    unittest.main()

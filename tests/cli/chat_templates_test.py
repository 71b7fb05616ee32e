#!/usr/bin/env python3
"""Chat templates as users meet them: apply-template, and the options of chat. Usage: chat_templates_test.py [unittest options]"""
import json
import pathlib
import re
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cli_support import EMBEDDED, CliTest  # noqa: E402

GREEDY = ("--temperature", "0")
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"b": 1, "a": [1.0, None]}}}
TEMPLATE = """{{ bos_token }}{% for m in messages -%}
<|{{ m.role }}|>{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}
{% endfor %}{% if tools %}{{ tools | tojson(indent=1) }}{% endif %}
{{ mode | default('plain') }} {{ strftime_now('%Y-%m-%d') }}{% if add_generation_prompt %}>{% endif %}"""


class ApplyTemplate(CliTest):
    def cases(self, cases, *args):
        return json.loads(self.good("apply-template", *args, stdin=json.dumps(cases)).stdout)

    def test_renders_a_file_of_cases_to_a_file(self):
        template = self.path("t.jinja", TEMPLATE)
        cases = self.path("cases.json", [
            {"messages": [{"role": "user", "content": "Gr\u00fc\u00dfe", "tool_calls": None}], "tools": None,
             "add_generation_prompt": True, "extra": {"bos_token": "<s>"}, "now": "2024-02-29T01:02:03"},
            {"messages": [], "tools": [TOOL], "extra": {"mode": "m"}, "now": "2024-02-29"},
            {"messages": [{"role": "user"}, 7]}])
        output = self.path("out.json")
        self.good("apply-template", "--chat-template", template, "--input", cases, "--output", output)
        first, second, third = json.loads(output.read_text())
        self.assertEqual(first, {"text": "<s><|user|>Gr\u00fc\u00dfeplain 2024-02-29>"})
        self.assertEqual(second, {"text": json.dumps([TOOL], indent=1) + "m 2024-02-29"})
        self.assertEqual(third, {"error": "message 1 is an integer; it must be a mapping"})

    def test_without_a_template_it_is_the_models(self):
        cases = [{"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": True}]
        expected = [{"text": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"}]
        self.assertEqual(self.cases(cases), expected)
        self.assertEqual(self.cases(cases, "--model", EMBEDDED), expected)
        eos = self.cases([{"messages": []}], "-m", EMBEDDED, "--chat-template", self.path("e.jinja", "{{ eos_token }}"))
        self.assertEqual(eos, [{"text": "<|endoftext|>"}])
        none = self.cases([{"messages": []}], "--chat-template", self.path("e.jinja"))
        self.assertEqual(none, [{"text": ""}])

    def test_tools_choose_the_template_for_tools(self):
        model = self.model(EMBEDDED)
        self.replace(model / "tokenizer_config.json",
                     {"chat_template": [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]})
        self.assertEqual(self.cases([{"messages": []}, {"messages": [], "tools": [TOOL]}], "-m", model),
                         [{"text": "D"}, {"text": "T"}])
        self.path("model/chat_template.jinja", "F")
        self.assertEqual(self.cases([{"messages": [], "tools": [TOOL]}], "-m", model), [{"text": "F"}])

    def test_refusals_name_the_file_and_the_line(self):
        bad = self.path("bad.jinja", "a\n{{ x | urlize }}")
        self.refused(["apply-template", "--chat-template", bad], r"bad\.jinja: line 2: the filter urlize", stdin="[]")
        self.refused(["apply-template"], "standard input", "a mapping", "list of conversations", stdin="{}")
        self.refused(["apply-template"], "standard input", "not valid JSON", stdin="[")
        self.refused(["apply-template", "--chat-template", self.folder / "none"], "none: no such file", stdin="[]")
        self.refused(["apply-template", "-o", self.folder / "no/out"], "no/out", stdin="[]")


class Chat(CliTest):
    def prompt(self, *args, stdin="Hello\n"):
        done = self.good("chat", "-n", "2", *GREEDY, "--show-prompt", *args, stdin=stdin)
        text = json.loads(re.search(r"prompt: (.*)", done.stderr)[1])
        ids = json.loads(re.search(r"prompt ids: (.*)", done.stderr)[1])
        return text, ids

    def test_shows_the_prompt_as_text_and_ids(self):
        text, ids = self.prompt("--system", "<|im_end|>")
        self.assertEqual(text, "<|im_start|>system\n<|im_end|><|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
                               "<|im_start|>assistant\n")
        decoded = self.good("tokenize", "--decode", stdin=json.dumps([ids])).stdout
        self.assertEqual(json.loads(decoded), [text])
        # What the user wrote is no special token.
        (whole,) = json.loads(self.good("tokenize", stdin=json.dumps([text])).stdout)
        special = json.loads(self.good("tokenize", stdin=json.dumps(["<|im_end|>"])).stdout)[0][0]
        self.assertEqual(whole.count(special), 3)
        self.assertEqual(ids.count(special), 2)

    def test_takes_a_template_of_its_own_with_variables(self):
        template = self.path("t.jinja", TEMPLATE)
        text, _ = self.prompt("--chat-template", template, "--chat-template-kwargs",
                              json.dumps({"mode": "quiet", "tools": [TOOL], "bos_token": "<s>"}))
        self.assertRegex(text, r'^<s><\|user\|>Hello\[\n \{\n  "type": "function",(.|\n)*quiet \d{4}-\d\d-\d\d>$')

    def test_what_is_wrong_is_told_before_weights_are_read(self):
        for kwargs, found in (("[1]", "a list; it must be an object"), ("{", "not valid JSON"),
                              ('{"messages": []}', "the member messages")):
            self.refused(["chat", "--chat-template-kwargs", kwargs], "--chat-template-kwargs", found)
        self.refused(["chat", "--chat-template", self.path("t.jinja", "{% if %}")], r"t\.jinja: line 1: ")


if __name__ == "__main__":
    unittest.main()

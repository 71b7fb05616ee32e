"""Chats of `wideload serve`: what stands before the answer, and what is taken out of it."""
import json
import unittest

from cli_support import EMBEDDED, CliTest
from serve_support import Server, ServeTest

CHAT = [{"role": "user", "content": "Who are you?"}]


class Prompts(ServeTest):
    def test_an_answer_goes_on_with_the_last_message(self):
        begun = {"messages": CHAT + [{"role": "assistant", "content": "I am "}], "continue_final_message": True}
        prompt = self.server.post("/apply-template", **begun)[1]["prompt"]
        self.assertTrue(prompt.endswith("<|im_start|>assistant\nI am "), prompt)
        ids = self.server.post("/tokenize", **begun)[1]["tokens"]
        fields = {"max_tokens": 8, "temperature": 0, "return_token_ids": True}
        chat = self.server.post("/v1/chat/completions", **begun, **fields)[1]
        self.assertEqual(chat["prompt_token_ids"], ids)
        text = self.server.post("/v1/completions", prompt=ids, **fields)[1]["choices"][0]
        self.assertEqual(chat["choices"][0]["token_ids"], text["token_ids"])
        self.assertEqual(chat["choices"][0]["message"]["content"], text["text"])
        self.refusal(400, "continue_final_message", "/v1/chat/completions", **begun, add_generation_prompt=True)

    def test_a_chats_prompt_is_told_beside_its_choices(self):
        path, fields = "/v1/chat/completions", {"messages": CHAT, "max_tokens": 2, "n": 2, "return_token_ids": True}
        body = self.server.post(path, **fields, prompt_logprobs=1)[1]
        self.assertEqual(len(body["prompt_logprobs"]), len(body["prompt_token_ids"]))
        for choice in body["choices"]:
            self.assertEqual(len(choice["token_ids"]), 2)
            self.assertFalse({"prompt_logprobs", "prompt_token_ids"} & set(choice))
        events = self.server.events(path, **fields)
        self.assertEqual([e.get("prompt_token_ids") for e in events[:2]], [body["prompt_token_ids"], None])
        self.assertNotIn("prompt_token_ids", {key for e in events for c in e["choices"] for key in c})


class Messages(CliTest):
    """A token that is a whole message, which a bias makes the model choose."""

    def serve(self, token, template):
        folder = self.model(EMBEDDED)
        tokenizer = json.loads((EMBEDDED / "tokenizer.json").read_text())
        model = tokenizer["model"]
        model["vocab"] = {token if i == 8191 else text: i for text, i in model["vocab"].items()}
        model["merges"] = model["merges"][:-1]  # the one that makes the token whose place the message takes
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        server = Server("-m", folder, "--chat-template", self.path("template", template))
        self.addCleanup(server.end)
        return server

    def test_thoughts_come_apart_from_the_text(self):
        # The vocabulary writes a line end as this letter, and a blank as another.
        server = self.serve("<think>\u010aHm.\u010a</think>\u010aYes", "{{ messages[0].content }}{# </think> #}")
        fields = {"messages": CHAT, "max_tokens": 2, "temperature": 0, "logit_bias": {"8191": 100}}
        path = "/v1/chat/completions"
        message = server.post(path, **fields)[1]["choices"][0]["message"]
        self.assertEqual(message, {"role": "assistant", "reasoning_content": "Hm.",
                                   "content": "Yes<think>\nHm.\n</think>\nYes"})
        deltas = [e["choices"][0]["delta"] for e in server.events(path, **fields)]
        for key in ("reasoning_content", "content"):
            self.assertEqual("".join(delta.get(key, "") for delta in deltas), message[key])

    def test_effort_is_a_variable_of_the_template(self):
        server = self.serve("x", "{{ reasoning_effort | default('none said') }} {{ messages[0].content }}")
        for fields, effort in (({}, "none said"), ({"reasoning_effort": "high"}, "high"),
                               ({"reasoning_effort": "high", "chat_template_kwargs": {"reasoning_effort": "x"}}, "x")):
            self.assertEqual(server.post("/apply-template", messages=CHAT, **fields)[1]["prompt"], effort + " Who are you?")
        body = server.post("/v1/responses", input="Hi", reasoning={"effort": "low"}, max_output_tokens=2,
                           logit_bias={"42": 100}, temperature=0)[1]
        self.assertEqual(body["reasoning"], {"effort": "low"})
        self.assertEqual((body["status"], body["output"][0]["status"], body["incomplete_details"]["reason"]),
                         ("incomplete", "incomplete", "max_output_tokens"))

    def test_calls_come_apart_from_the_text(self):
        call = '<tool_call>{"name":"f","arguments":{"b":1,"a":"}"}}</tool_call>'
        server = self.serve(call, "{% if tools %}call with <tool_call>{% endif %}{{ messages[0].content }}")
        fields = {"messages": CHAT, "max_tokens": 2, "temperature": 0, "logit_bias": {"8191": 100}}
        tools = [{"type": "function", "function": {"name": "f"}}]
        path = "/v1/chat/completions"
        choice = server.post(path, **fields, tools=tools)[1]["choices"][0]
        self.assertIsNone(choice["message"]["content"])
        calls = choice["message"]["tool_calls"]
        self.assertEqual([c["function"] for c in calls], [{"name": "f", "arguments": '{"b":1,"a":"}"}'}] * 2)
        self.assertEqual(len({c["id"] for c in calls}), 2)
        events = server.events(path, **fields, tools=tools)
        streamed = [c for e in events for c in e["choices"][0]["delta"].get("tool_calls", [])]
        self.assertEqual([c["index"] for c in streamed], [0, 1])
        self.assertEqual([c["function"] for c in streamed], [c["function"] for c in calls])
        for extra in ({}, {"tools": tools, "tool_choice": "none"}):
            self.assertEqual(server.post(path, **fields, **extra)[1]["choices"][0]["message"],
                             {"role": "assistant", "content": call * 2})


if __name__ == "__main__":
    unittest.main()

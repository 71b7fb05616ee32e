"""`wideload serve` as its clients meet it: routes, fields, streams, errors, limits, the same bits as generate."""
import concurrent.futures
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import unittest

from cli_support import EMBEDDED, CliTest, run
from serve_support import Server, ServeTest

PROMPT = "Once upon a time"
CHAT = [{"role": "user", "content": "Who are you?"}]


class Routes(ServeTest):
    FLAGS = ("--served-model-name", "tiny")

    def test_says_what_it_serves(self):
        status, _, body = self.server.ask("GET", "/v1/models")
        model = json.loads(body)["data"][0]
        self.assertEqual((status, model["id"], model["max_model_len"]), (200, "tiny", 2048))
        self.assertTrue(model["root"].endswith("wideload-14m"))
        for path in ("/health", "/ready", "/version", "/openapi.json"):
            status, headers, body = self.server.ask("GET", path)
            self.assertEqual((status, headers["Content-Type"]), (200, "application/json"), path)
            json.loads(body)

    def test_the_openapi_document_has_every_field(self):
        document = json.loads(self.server.ask("GET", "/openapi.json")[2])
        schema = document["paths"]["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        self.assertLessEqual({"prompt", "n", "stop", "logit_bias", "ignore_eos"}, set(schema["properties"]))
        self.assertIs(schema["additionalProperties"], False)

    def test_completion(self):
        status, body = self.server.post("/v1/completions", model="tiny", prompt=PROMPT, max_tokens=5, temperature=0)
        self.assertEqual(status, 200, body)
        self.assertEqual(body["object"], "text_completion")
        self.assertEqual(body["choices"][0]["finish_reason"], "length")
        self.assertEqual(body["usage"]["completion_tokens"], 5)
        self.assertEqual(body["usage"]["total_tokens"], body["usage"]["prompt_tokens"] + 5)

    def test_a_stream_has_the_text_of_the_whole_answer(self):
        for path, fields in (("/v1/completions", {"prompt": PROMPT}), ("/v1/chat/completions", {"messages": CHAT})):
            fields = {**fields, "max_tokens": 40, "temperature": 0.8, "seed": 5, "ignore_eos": True}
            whole = self.server.post(path, **fields)[1]["choices"][0]
            events = self.server.events(path, **fields, stream_options={"include_usage": True})
            usage = events.pop()
            self.assertEqual((usage["choices"], usage["usage"]["completion_tokens"]), ([], 40))
            choices = [event["choices"][0] for event in events]
            if "messages" in fields:
                self.assertEqual(choices[0]["delta"], {"role": "assistant", "content": ""})
                text = "".join(choice["delta"].get("content", "") for choice in choices)
                self.assertEqual(text, whole["message"]["content"])
            else:
                self.assertEqual("".join(choice["text"] for choice in choices), whole["text"])
            self.assertEqual([c["finish_reason"] for c in choices], [None] * (len(choices) - 1) + ["length"])

    def test_responses_say_what_the_chat_says(self):
        fields = {"temperature": 0.8, "seed": 5, "ignore_eos": True}
        chat = self.server.post("/v1/chat/completions", messages=CHAT, max_tokens=20, **fields)[1]
        asked = {"input": CHAT[0]["content"], "max_output_tokens": 20, "metadata": {"a": "b"}, **fields}
        status, body = self.server.post("/v1/responses", **asked)
        self.assertEqual((status, body["object"], body["status"], body["metadata"]), (200, "response", "incomplete", {"a": "b"}))
        self.assertEqual(body["incomplete_details"], {"reason": "max_output_tokens"})
        text = chat["choices"][0]["message"]["content"]
        self.assertEqual([(item["type"], item["content"][0]["text"]) for item in body["output"]], [("message", text)])
        self.assertEqual((body["usage"]["input_tokens"], body["usage"]["output_tokens"]),
                         (chat["usage"]["prompt_tokens"], 20))
        stream = self.server.ask("POST", "/v1/responses", {**asked, "stream": True})[2].decode()
        events = [event.split("\n") for event in stream.strip().split("\n\n")]
        named = [name.removeprefix("event: ") for name, _ in events]
        told = [json.loads(data.removeprefix("data: ")) for _, data in events]
        self.assertEqual(named, [event["type"] for event in told])
        self.assertEqual((named[0], named[-1]), ("response.created", "response.incomplete"))
        self.assertEqual("".join(e["delta"] for e in told if e["type"] == "response.output_text.delta"), text)
        self.assertEqual([(i["type"], i["content"]) for i in told[-1]["response"]["output"]],
                         [(i["type"], i["content"]) for i in body["output"]])
        self.refusal(400, "previous_response_id", "/v1/responses", input="a", previous_response_id="resp_1")

    def test_n_choices_and_several_prompts(self):
        body = self.server.post("/v1/completions", prompt=[PROMPT, "The sun"], n=2, max_tokens=6, temperature=1,
                                seed=1, ignore_eos=True)[1]
        self.assertEqual([c["index"] for c in body["choices"]], [0, 1, 2, 3])
        self.assertEqual(body["usage"]["completion_tokens"], 24)
        self.assertNotEqual(body["choices"][0]["text"], body["choices"][1]["text"])
        again = self.server.post("/v1/completions", prompt=PROMPT, n=2, max_tokens=6, temperature=1, seed=1,
                                 ignore_eos=True)[1]
        self.assertEqual([c["text"] for c in again["choices"]], [c["text"] for c in body["choices"][:2]])

    def test_echo_and_logprobs_of_the_prompt(self):
        body = self.server.post("/v1/completions", prompt=PROMPT, max_tokens=1, temperature=0, echo=True, logprobs=2)[1]
        choice = body["choices"][0]
        self.assertTrue(choice["text"].startswith(PROMPT))
        logprobs = choice["logprobs"]
        self.assertEqual("".join(logprobs["tokens"]), choice["text"])
        self.assertIsNone(logprobs["token_logprobs"][0])
        self.assertIsNone(logprobs["top_logprobs"][0])
        for token, value, top in list(zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"]))[1:]:
            self.assertEqual(top[token], value)
            self.assertIn(len(top), (2, 3))
        only = self.server.post("/v1/completions", prompt=PROMPT, max_tokens=0, echo=True)[1]["choices"][0]
        self.assertEqual(only["text"], PROMPT)

    def test_logprobs_of_a_chat_have_bytes(self):
        body = self.server.post("/v1/chat/completions", messages=CHAT, max_tokens=4, temperature=0, logprobs=True,
                                top_logprobs=3)[1]
        content = body["choices"][0]["logprobs"]["content"]
        self.assertEqual(len(content), 4)
        for token in content:
            self.assertEqual(len(token["top_logprobs"]), 3)
            self.assertEqual(bytes(token["bytes"]).decode(errors="replace"), token["token"])

    def test_stop_strings_and_stop_token_ids(self):
        whole = self.server.post("/v1/completions", prompt=PROMPT, max_tokens=12, temperature=0, return_token_ids=True,
                                 ignore_eos=True)[1]["choices"][0]
        stop = whole["text"][6:9]
        choice = self.server.post("/v1/completions", prompt=PROMPT, max_tokens=12, temperature=0, stop=[stop],
                                  ignore_eos=True)[1]["choices"][0]
        self.assertEqual((choice["text"], choice["finish_reason"]), (whole["text"][:whole["text"].index(stop)], "stop"))
        stop_id = whole["token_ids"][3]
        choice = self.server.post("/v1/completions", prompt=PROMPT, max_tokens=12, temperature=0, ignore_eos=True,
                                  stop_token_ids=[stop_id], return_token_ids=True)[1]["choices"][0]
        self.assertEqual(choice["finish_reason"], "stop")
        first = whole["token_ids"].index(stop_id)
        self.assertEqual(choice["token_ids"], whole["token_ids"][:first + 1])
        choice = self.server.post("/v1/completions", prompt=PROMPT, max_tokens=12, temperature=0, ignore_eos=True,
                                  stop_token_ids=[stop_id], min_tokens=first + 2, return_token_ids=True)[1]["choices"][0]
        self.assertGreater(len(choice["token_ids"]), first + 1)
        self.assertNotEqual(choice["token_ids"][first], stop_id)

    def test_the_beginning_of_a_prompt_is_computed_once(self):
        ids = [7, 8] * 40
        fields = {"max_tokens": 8, "temperature": 0, "logprobs": 3}
        first, second, salted, once_more = (
            self.server.post("/v1/completions", prompt=ids, **fields, **salt)[1]
            for salt in ({}, {}, {"cache_salt": "mine"}, {"cache_salt": "mine"}))
        self.assertEqual([body["usage"]["prompt_tokens_details"]["cached_tokens"]
                          for body in (first, second, salted, once_more)], [0, 64, 0, 64])
        for body in (second, salted, once_more):
            self.assertEqual(body["choices"], first["choices"])
        queries, hits = (self.server.metric(f"prefix_cache_{name}_total") for name in ("queries", "hits"))
        self.assertGreaterEqual(hits, 128)
        self.assertAlmostEqual(self.server.metric("kv_cache_hit_rate"), hits / queries, places=5)
        # A prompt whose log probabilities are asked for is computed.
        body = self.server.post("/v1/completions", prompt=ids, max_tokens=1, prompt_logprobs=0)[1]
        self.assertEqual(body["usage"]["prompt_tokens_details"]["cached_tokens"], 0)
        self.assertEqual(len(body["choices"][0]["prompt_logprobs"]), 80)

    def test_logit_bias_forces_a_token(self):
        choice = self.server.post("/v1/completions", prompt=PROMPT, max_tokens=3, temperature=0,
                                  logit_bias={"42": 100}, return_token_ids=True)[1]["choices"][0]
        self.assertEqual(choice["token_ids"], [42, 42, 42])

    def test_tokens_and_texts(self):
        text = "Grüße, 世界 <|im_end|>"
        body = self.server.post("/tokenize", prompt=text, return_token_strs=True)[1]
        self.assertEqual(body["count"], len(body["tokens"]))
        self.assertEqual(len(body["token_strs"]), body["count"])
        self.assertEqual(self.server.post("/detokenize", tokens=body["tokens"])[1]["prompt"], text)
        prompt = self.server.post("/apply-template", messages=CHAT)[1]["prompt"]
        self.assertIn(CHAT[0]["content"], prompt)
        chat = self.server.post("/tokenize", messages=CHAT)[1]
        usage = self.server.post("/v1/chat/completions", messages=CHAT, max_tokens=1)[1]["usage"]
        self.assertEqual(usage["prompt_tokens"], chat["count"])

    def test_ids_and_text_are_the_same_prompt(self):
        ids = self.server.post("/tokenize", prompt=PROMPT)[1]["tokens"]
        fields = {"max_tokens": 8, "temperature": 0}
        self.assertEqual(self.server.post("/v1/completions", prompt=PROMPT, **fields)[1]["choices"],
                         self.server.post("/v1/completions", prompt=ids, **fields)[1]["choices"])

    def test_refusals_name_the_field(self):
        completions, chat = "/v1/completions", "/v1/chat/completions"
        self.refusal(400, "temperatur", completions, prompt=PROMPT, temperatur=1)
        self.refusal(400, "top_p", completions, prompt=PROMPT, top_p="x")
        self.refusal(400, "n", completions, prompt=PROMPT, n=0)
        for stop in ([""], ["a"] * 65, ["x" * 5000]):
            self.refusal(400, "stop", completions, prompt=PROMPT, stop=stop)
        self.refusal(400, "response_format", chat, messages=CHAT, response_format={"type": "grammar"})
        self.refusal(400, "messages", chat, max_tokens=1)
        error = self.refusal(400, None, chat, messages=[{"role": "user"}])  # the template needs a content
        self.assertTrue(error["message"].startswith("tokenizer_config.json: chat_template"), error)
        self.refusal(400, "reasoning_effort", chat, messages=CHAT, reasoning_effort="low")  # the template does not know it
        self.refusal(400, "reasoning", "/v1/responses", input="a", reasoning={"effort": "low"})
        self.refusal(400, "metadata", chat, messages=CHAT, metadata={"a": "b"})
        self.refusal(400, "guided_json", chat, messages=CHAT, guided_json="{")
        self.refusal(404, "model", completions, prompt=PROMPT, model="gpt-4")
        for field, value in (("prompt", ""), ("prompt", [8192]), ("min_tokens", 99), ("top_p", 0), ("stop_token_ids", [8192]),
                             ("repetition_penalty", 1e6), ("stream_options", {"continuous_usage_stats": True})):
            self.refusal(400, field, completions, **{"prompt": PROMPT, field: value})
        self.refusal(400, "max_output_tokens", "/v1/responses", input="a", max_output_tokens=5000)
        tools = [{"type": "function", "function": {"name": "f"}}]  # the model's template shows none
        self.refusal(400, "tools", chat, messages=CHAT, tools=tools)
        self.assertEqual(self.server.post(chat, messages=CHAT, tools=tools, tool_choice="none", max_tokens=1)[0], 200)
        for fields in ({"prompt": "x " * 3000}, {"prompt": PROMPT, "max_tokens": 5000}, {"prompt": [1] * 3000}):
            status, body = self.server.post(completions, **fields)
            self.assertEqual((status, body["error"]["code"]), (400, "context_length_exceeded"))
        for fields in ({"prompt": [9999999]}, {"prompt": PROMPT, "logit_bias": {"9999999": 1}}, {"prompt": [[]]},
                       {"prompt": PROMPT, "top_p": 0}, {"prompt": PROMPT, "min_tokens": 99}):
            self.assertEqual(self.server.post(completions, **fields)[0], 400, fields)
        for body in (b"", b"{", b"[]", b"\xff", b'{"prompt": "\xc3"}', b'{"prompt":' + b"[" * 100000):
            status, _, answer = self.server.ask("POST", completions, body)
            self.assertEqual(status, 400, body)
            json.loads(answer)

    def test_routes_that_are_not_there(self):
        self.assertEqual(self.server.ask("GET", "/v2/models")[0], 404)
        status, headers, _ = self.server.ask("GET", "/v1/completions")
        self.assertEqual((status, headers["Allow"]), (405, "POST"))

    def test_metrics_count(self):
        before = self.server.metric("generation_tokens_total")
        self.server.post("/v1/completions", prompt=PROMPT, max_tokens=7, ignore_eos=True)
        self.assertEqual(self.server.metric("generation_tokens_total"), before + 7)
        text = self.server.ask("GET", "/prometheus/metrics")[2].decode()
        for line in text.splitlines():
            self.assertRegex(line, r"^(# (HELP|TYPE) wideload_\w+ .+|wideload_\w+\{[^{}]+\} [0-9.e+-]+)$")


class Http(ServeTest):
    def read_all(self, s):
        data = b""
        while piece := s.recv(65536):
            data += piece
        return data

    def test_keep_alive_and_pipelining(self):
        one = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        with self.server.raw(one * 3 + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) as s:
            self.assertEqual(self.read_all(s).count(b"HTTP/1.1 200"), 4)

    def test_http_1_0(self):
        body = json.dumps({"prompt": PROMPT, "max_tokens": 3, "stream": True, "temperature": 0}).encode()
        head = b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body)
        with self.server.raw(head + body) as s:
            answer = self.read_all(s)
        self.assertNotIn(b"chunked", answer)
        self.assertTrue(answer.endswith(b"data: [DONE]\n\n"), answer)

    def test_expect_continue_and_chunked_bodies(self):
        body = json.dumps({"prompt": PROMPT, "max_tokens": 1}).encode()
        head = (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n"
                b"Connection: close\r\n\r\n")
        with self.server.raw(head) as s:
            self.assertTrue(s.recv(100).startswith(b"HTTP/1.1 100"))
            for i in range(0, len(body), 7):
                s.sendall(b"%x\r\n%s\r\n" % (len(body[i:i + 7]), body[i:i + 7]))
            s.sendall(b"0\r\n\r\n")
            self.assertIn(b"text_completion", self.read_all(s))

    def test_what_is_no_http_is_refused(self):
        for data, status in ((b"hello\r\n\r\n", b"400"), (b"GET /health HTTP/1.1\r\n\r\n", b"400"), (b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n\r\n", b"431"),
                             (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 4000 + b"\r\n", b"431"),
                             (b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
                             (b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
                             (b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
                             (b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" +
                              (b"100000\r\n" + b" " * 0x100000 + b"\r\n") * 6, b"413")):
            with self.server.raw(b"") as s:
                try:
                    s.sendall(data)
                except ConnectionError:
                    pass
                answer = self.read_all(s)
            self.assertTrue(answer.startswith(b"HTTP/1.1 " + status), (data[:60], answer[:200]))
        self.assertEqual(self.server.ask("GET", "/health")[0], 200)

    def test_clients_that_go_leave_nothing(self):
        body = json.dumps({"prompt": PROMPT, "max_tokens": 1900, "ignore_eos": True, "n": 2}).encode()
        stream = body.replace(b'"n": 2', b'"stream": true')
        request = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
        reset = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing resets
        for data in (b"POST /v1", request % (len(body), body[:10]), request % (len(body), body),
                     request % (len(stream), stream)):
            for how in ("close", "reset"):
                with self.server.raw(data) as s:
                    if data.endswith(stream):
                        self.assertIn(b"200", s.recv(1000))
                    if how == "reset":
                        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        self.server.wait_idle()
        self.assertEqual(self.server.metric("kv_cache_usage_perc"), 0)
        self.server.wait_until(lambda: self.server.metric("http_connections") == 1, "connections are left")


class Keys(CliTest):
    def test_every_route_but_health_asks_for_a_key(self):
        server = Server("--api-key-file", self.path("keys", "# two\nfirst-key-0001\nsecond-key-0002\n"))
        self.addCleanup(server.end)
        self.assertEqual(server.ask("GET", "/health")[0], 200)
        for path in ("/v1/models", "/metrics", "/ready", "/version", "/openapi.json", "/nothing"):
            self.assertEqual(server.ask("GET", path)[0], 401, path)
        for key in ("first-key-000", "first-key-00011", "", "x" * 9000):
            self.assertEqual(server.ask("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})[0], 401, key)
        for key in ("first-key-0001", "second-key-0002"):
            self.assertEqual(server.ask("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})[0], 200, key)
        self.assertEqual(server.ask("POST", "/tokenize", {"prompt": "a"})[0], 401)

    def test_keys_have_prefixes_of_their_own_where_that_is_asked_for(self):
        keys = self.path("keys", "first-key-0001\nsecond-key-0002\n")
        self.refused(["serve", "-m", EMBEDDED, "--cache-salt-per-key"], "--cache-salt-per-key", "--api-key-file")
        server = Server("--api-key-file", keys, "--cache-salt-per-key")
        self.addCleanup(server.end)
        cached = []
        for key in ("first-key-0001", "second-key-0002", "second-key-0002"):
            body = server.ask("POST", "/v1/completions", {"prompt": [7] * 40, "max_tokens": 1},
                              headers={"Authorization": f"Bearer {key}"})[2]
            cached.append(json.loads(body)["usage"]["prompt_tokens_details"]["cached_tokens"])
        self.assertEqual(cached, [0, 0, 32])

    def test_a_file_without_keys_is_refused(self):
        result = run("serve", "--api-key-file", self.path("keys", "# none\n"))
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("no key", result.stderr)

    def test_numbers_out_of_their_range_are_refused(self):
        for flag, value in (("--port", "65536"), ("--port", "-1"), ("--request-timeout", "1e300"), ("--drain-timeout", "-1")):
            result = run("serve", flag, value)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn(flag, result.stderr)


@unittest.skipUnless(shutil.which("openssl"), "openssl, which makes certificates, is not here")
class Tls(CliTest):
    def certificate(self, name):
        """Flags with a key and a certificate for localhost that it has signed itself."""
        files = [self.path(f"{name}-key.pem", ""), self.path(f"{name}.pem", "")]
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", files[0], "-out", files[1]],
                       check=True, capture_output=True)
        return ["--ssl-keyfile", files[0], "--ssl-certfile", files[1]]

    def test_a_client_that_trusts_the_certificate_is_answered(self):
        flags = self.certificate("own")
        server = Server(*flags, "--api-key-file", self.path("keys", "first-key-0001\n"), tls=ssl.create_default_context(cafile=flags[3]))
        self.addCleanup(server.end)
        self.assertEqual(server.ask("GET", "/v1/models")[0], 401)
        headers = {"Authorization": "Bearer first-key-0001"}
        connection = server.connect()
        for stream in (False, True, False):  # on one connection
            connection.request("POST", "/v1/completions", json.dumps({"prompt": PROMPT, "max_tokens": 40, "stream": stream}), headers)
            answer = connection.getresponse()
            self.assertEqual(answer.status, 200)
            self.assertIn(b"length" if not stream else b"[DONE]", answer.read())
        connection.close()
        with server.raw(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n") as plain:
            self.assertNotIn(b"HTTP", plain.recv(1000))
        with self.assertRaises(ssl.SSLCertVerificationError):
            server.tls = ssl.create_default_context()
            server.ask("GET", "/health")

    def test_files_that_cannot_be_used_are_refused_at_the_start(self):
        one, other = self.certificate("one"), self.certificate("other")
        self.refused(["serve", *one[:2]], "--ssl-certfile", "--ssl-keyfile")
        self.refused(["serve", *one[:2], *other[2:]], "one-key.pem", "not that of the certificate", "other.pem")
        self.refused(["serve", *one[2:], "--ssl-keyfile", self.path("text", "no key")], "no private key")
        self.refused(["serve", *one[2:], "--ssl-keyfile", "/nowhere/key.pem"], "/nowhere/key.pem")


class Load(unittest.TestCase):
    def test_more_than_the_limit_is_told_to_come_later(self):
        server = Server("--max-open-requests", "2", "--max-batch-size", "1")
        self.addCleanup(server.end)
        body = json.dumps({"prompt": PROMPT, "max_tokens": 1500, "ignore_eos": True, "stream": True})
        request = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        with server.raw(request), server.raw(request):
            server.wait_until(lambda: server.metric("num_requests_open") == 2, "the requests did not come")
            status, headers, answer = server.ask("POST", "/v1/completions", {"prompt": PROMPT})
            self.assertEqual((status, headers["Retry-After"]), (429, "1"), answer)
            self.assertEqual(json.loads(answer)["error"]["type"], "rate_limit_error")
        server.wait_idle()
        self.assertEqual(server.post("/v1/completions", prompt=PROMPT, max_tokens=1)[0], 200)

    def test_the_request_timeout_ends_with_what_there_is(self):
        server = Server("--request-timeout", "0.3")
        self.addCleanup(server.end)
        status, body = server.post("/v1/completions", prompt=PROMPT, max_tokens=2000, ignore_eos=True)
        self.assertEqual((status, body["choices"][0]["finish_reason"]), (200, "abort"))
        self.assertLess(body["usage"]["completion_tokens"], 2000)

    def test_what_is_under_way_is_answered_before_the_end(self):
        server = Server()
        connection = server.connect()
        connection.request("POST", "/v1/completions",
                           json.dumps({"prompt": PROMPT, "max_tokens": 200, "ignore_eos": True, "stream": True}))
        response = connection.getresponse()
        os.kill(server.process.pid, signal.SIGTERM)
        self.assertTrue(response.read().endswith(b"data: [DONE]\n\n"))
        self.assertEqual(server.process.wait(60), 0, server.stderr())
        with self.assertRaises(OSError):
            server.connect(timeout=5).connect()

    def test_the_drain_timeout_ends_what_takes_longer(self):
        server = Server("--drain-timeout", "0")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            answer = pool.submit(server.post, "/v1/completions", prompt=PROMPT, max_tokens=2000, ignore_eos=True)
            server.wait_until(lambda: server.metric("num_requests_running") == 1, "the request did not come")
            self.assertEqual(server.end(), 0, server.stderr())
            self.assertGreaterEqual(answer.result()[0], 500)


class SameBits(CliTest):
    """A request's output is that of `generate`, at any load."""

    CASES = [(["--temperature", 0], {"temperature": 0}),
             (["--temperature", 0.9, "--top-k", 50, "--top-p", 0.9, "--seed", 3],
              {"temperature": 0.9, "top_k": 50, "top_p": 0.9, "seed": 3}),
             (["--temperature", 1.3, "--top-k", 0, "--top-p", 1, "--min-p", 0.05, "--seed", 8,
               "--repetition-penalty", 1.2],
              {"temperature": 1.3, "top_k": 0, "top_p": 1, "min_p": 0.05, "seed": 8, "repetition_penalty": 1.2})]

    def expected(self):
        for flags, fields in self.CASES:
            result = run("generate", "-p", PROMPT, "-n", 24, "--ignore-eos", "--json", "--threads", 1, *flags)
            self.assertEqual(result.returncode, 0, result.stderr)
            yield {**fields, "prompt": PROMPT, "max_tokens": 24, "ignore_eos": True}, json.loads(result.stdout)["text"]

    def check(self, server):
        cases = list(self.expected())
        noise = [{"prompt": "Noise " * (1 + i % 9), "max_tokens": 5 + i % 30, "seed": i} for i in range(24)]
        for busy in (False, True):
            with concurrent.futures.ThreadPoolExecutor(32) as pool:
                others = [pool.submit(server.post, "/v1/completions", **fields) for fields in noise if busy]
                asked = [(pool.submit(server.post, "/v1/completions", **fields), text) for fields, text in cases * 2]
                for answer, text in asked:
                    status, body = answer.result()
                    self.assertEqual(status, 200, body)
                    self.assertEqual(body["choices"][0]["text"], text)
                for answer in others:
                    self.assertEqual(answer.result()[0], 200)
        self.assertEqual(server.end(), 0, server.stderr())

    def test_on_ranks_that_are_threads(self):
        self.check(Server("--ep", "2", "--max-num-tokens", "64"))


if __name__ == "__main__":
    unittest.main()

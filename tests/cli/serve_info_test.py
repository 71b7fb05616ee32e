"""What `wideload serve` says of its model, tokenizer and engine."""
import json
import unittest

from serve_support import ServeTest


class Info(ServeTest):
    FLAGS = ("--served-model-name", "tiny")

    def test_says_what_one_model_is(self):
        listed = json.loads(self.server.ask("GET", "/v1/models")[2])["data"][0]
        for name in ("tiny", "t%69ny"):
            status, _, body = self.server.ask("GET", "/v1/models/" + name)
            self.assertEqual((status, json.loads(body)), (200, listed))
        status, _, body = self.server.ask("GET", "/v1/models/other%20one")
        error = json.loads(body)["error"]
        self.assertEqual((status, error["code"]), (404, "model_not_found"))
        self.assertIn('"other one"', error["message"])
        self.assertEqual(self.server.ask("GET", "/v1/models/")[0], 404)

    def test_says_what_tokenizer_and_engine_are(self):
        info = json.loads(self.server.ask("GET", "/tokenizer_info")[2])
        self.assertEqual((info["eos_token"], info["model_max_length"]), ("<|endoftext|>", 2048))
        self.assertIn("<|im_start|>", info["chat_template"])
        info = json.loads(self.server.ask("GET", "/server_info")[2])
        self.assertEqual((info["model"]["id"], info["layout"]["ranks"], info["layout"]["threads_per_rank"]), ("tiny", 1, 1))
        self.assertEqual(info["limits"]["max_open_requests"], 1024)

    def test_the_engine_shows_that_it_generates(self):
        before = self.server.metric("iterations_total")
        self.assertEqual(self.server.ask("GET", "/health_generate")[0], 200)
        self.server.wait_idle()
        self.assertGreaterEqual(self.server.metric("iterations_total"), before + 2)  # a token each


if __name__ == "__main__":
    unittest.main()

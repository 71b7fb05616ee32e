"""The pages of `wideload serve` and the routes they ask; what a browser makes of them: tests/clients/dashboard_test.py."""
import json
import re
import tempfile
import unittest

from serve_support import Server, ServeTest

LAYERS, EXPERTS, TOP_K = 5, 64, 6
PAGES = ("/", "/dashboard")


class Pages(ServeTest):
    FLAGS = ("--ep", "2", "--num-slots", "72", "--rebalance", "tensorrt_llm")

    def test_a_page_is_whole_and_asks_its_own_server_only(self):
        for path in PAGES:
            status, headers, body = self.server.ask("GET", path)
            text = body.decode()
            self.assertEqual((status, headers["Content-Type"]), (200, "text/html; charset=utf-8"))
            self.assertEqual([url for url in re.findall(r"https?://[^\s'\"]+", text) if url != "http://www.w3.org/2000/svg"], [])
            self.assertEqual(re.findall(r"(?:src|href)=\"(?!/|#|data:)", text), [])
            self.assertNotRegex(text, r"@\w+_(?:js|css)@|NONCE_OF|innerHTML|\son\w+=\"|\sstyle=\"")
            self.assertIn('<html lang="en">', text)

    def test_the_policy_lets_run_what_the_page_has_itself(self):
        for path in PAGES:
            nonces = set()
            for _ in range(2):
                _, headers, body = self.server.ask("GET", path)
                policy = headers["Content-Security-Policy"]
                self.assertTrue(policy.startswith("default-src 'none'; script-src 'nonce-"), policy)
                self.assertNotIn("unsafe", policy)
                nonce = re.search(r"script-src 'nonce-([0-9a-f]{32})'", policy)[1]
                self.assertEqual(set(re.findall(r"nonce=\"(\w+)\"", body.decode())), {nonce})
                nonces.add(nonce)
            self.assertEqual(len(nonces), 2)

    def test_figures_add_up(self):
        self.server.post("/v1/completions", prompt="Once upon a time", max_tokens=30, ignore_eos=True)
        self.server.wait_idle()
        data = json.loads(self.server.ask("GET", "/dashboard/data")[2])
        experts = json.loads(self.server.ask("GET", "/dashboard/experts")[2])
        self.assertEqual((len(data["layers"]), experts["experts"], data["ranks"]), (LAYERS, EXPERTS, 2))
        tokens = data["prompt_tokens"] + data["generated_tokens"]
        self.assertGreater(tokens, 30)
        self.assertEqual(sum(experts["routed"]), tokens * LAYERS * TOP_K)
        self.assertEqual(sum(data["rank_rows"]), sum(experts["routed"]))
        rows = data["stretches"]["rows"]
        self.assertEqual([len(row) for row in rows], [len(data["stretches"]["columns"])] * len(rows))
        self.assertEqual(sum(row[1] for row in rows), data["iterations"])
        self.assertEqual([len(data[key]) for key in ("imbalance_sums", "balancedness_sums")], [LAYERS] * 2)
        self.assertEqual(sum(data["balancer"]["fetched_slots_by_layer"]), data["balancer"]["fetched_slots"])
        self.assertEqual(len(data["exchange"]["rows_by_rank"]), 4)
        self.assertEqual(sum(data["exchange"]["rows_by_rank"]), data["exchange"]["rows"])
        self.assertEqual(data["exchange"]["rows_on_rank"] + sum(data["exchange"]["rows_by_host"]), data["exchange"]["rows"])
        places = data["places"]
        self.assertEqual([row[:7] for row in places["rows"]], [[0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 1, 0]])
        self.assertEqual({len(row) for row in places["rows"]}, {len(places["columns"])})
        self.assertLess(places["seconds_since_seen"], 60)

    def test_slots_hold_every_expert(self):
        experts = json.loads(self.server.ask("GET", "/dashboard/experts")[2])
        for slots, since in zip(experts["slots"], experts["since"]):
            self.assertEqual((len(slots), len(since), set(slots)), (72, 72, set(range(EXPERTS))))

    def test_fields_are_those_of_the_documentation(self):
        data = json.loads(self.server.ask("GET", "/dashboard/data")[2])
        self.assertEqual(set(data), {
            "schema_version", "time", "model", "version", "status", "ranks", "stages", "expert_ranks", "split", "layers", "places", "iterations",
            "prompt_tokens", "generated_tokens", "busy_seconds", "idle_seconds", "rank_rows", "imbalance_sums",
            "balancedness_sums", "stretches", "requests", "generation_server", "generation_servers", "balancer", "exchange", "host"})
        self.assertEqual((data["schema_version"], data["status"], data["balancer"]["mode"]), (1, "serving", "tensorrt_llm"))
        self.assertEqual((data["generation_server"], data["generation_servers"]["rows"]), (0, []))

    def test_engines_that_are_not_there_have_no_figures(self):
        self.assertEqual(self.server.ask("GET", "/dashboard/data?generation=0")[0], 200)
        for query in ("generation=1", "generation=x", "generation=", "generatio=0", "generation=0&"):
            for path in ("data", "experts"):
                self.assertEqual(self.server.ask("GET", f"/dashboard/{path}?{query}")[0], 404, query)


class Keys(unittest.TestCase):
    def test_pages_need_no_key_and_what_they_show_does(self):
        with tempfile.NamedTemporaryFile("w") as keys:
            keys.write("first-key\n")
            keys.flush()
            server = Server("--api-key-file", keys.name)
            try:
                self.assertEqual([server.ask("GET", path)[0] for path in PAGES], [200, 200])
                for path in ("/dashboard/data", "/dashboard/experts", "/metrics"):
                    self.assertEqual(server.ask("GET", path)[0], 401, path)
                    self.assertEqual(server.ask("GET", path, headers={"Authorization": "Bearer first-key"})[0], 200, path)
                self.assertEqual(server.ask("POST", "/dashboard", {})[0], 401)
            finally:
                server.end()


if __name__ == "__main__":
    unittest.main()

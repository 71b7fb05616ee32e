"""The pages of `wideload serve` in a real browser: ./dev test-dashboard.

Chromium loads both pages under their Content-Security-Policy at desktop and phone widths, light and dark; axe-core judges
them; what a person does with them is done. WIDELOAD_SCREENSHOTS=FOLDER keeps a picture of each."""
import json
import os
import pathlib
import sys
import tempfile
import threading
import unittest

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "cli"))
from serve_support import Server  # noqa: E402

KEY = "a-key-of-this-test"
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
SCREENSHOTS = os.environ.get("WIDELOAD_SCREENSHOTS")


class Browser(unittest.TestCase):
    """A server with OPTIONS, or `serve disaggregated` with the FILE, under its key, and Chromium."""
    OPTIONS = ()
    FILE = ""

    @classmethod
    def setUpClass(cls):
        keys = tempfile.NamedTemporaryFile("w", suffix=".keys", delete=False)
        with keys:
            keys.write(KEY + "\n")
        cls.addClassCleanup(os.unlink, keys.name)
        words = {}
        if cls.FILE:
            file = tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False)
            with file:
                file.write(cls.FILE)
            cls.addClassCleanup(os.unlink, file.name)
            words["words"] = ("serve", "disaggregated", "--config", file.name)
        cls.server = Server(*cls.OPTIONS, "--api-key-file", keys.name, **words)
        cls.addClassCleanup(cls.server.end)
        cls.base = f"http://localhost:{cls.server.port}"
        cls.work(6)
        playwright = sync_playwright().start()
        cls.addClassCleanup(playwright.stop)
        cls.browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        cls.addClassCleanup(cls.browser.close)

    @classmethod
    def work(cls, requests):
        """Load, so that there is something to show."""
        def ask(i):
            status, _, body = cls.server.ask("POST", "/v1/completions", {
                "prompt": ["Once upon a time", "def f(x):", "The sun"][i % 3] * (1 + i % 4), "max_tokens": 120, "seed": i,
                "ignore_eos": True}, {"Authorization": "Bearer " + KEY})
            assert status == 200, body
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(requests)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def open(self, path, width="desktop", scheme="light"):
        context = self.browser.new_context(viewport=dict(zip(("width", "height"), WIDTHS[width])), color_scheme=scheme,
                                           accept_downloads=True)
        self.addCleanup(context.close)
        page = context.new_page()
        self.complaints = []
        page.on("console", lambda message: message.type in ("error", "warning") and "401" not in message.text
                and self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith((self.base, "data:", "blob:"))
                or self.complaints.append("asks " + request.url))
        page.goto(self.base + path)
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Use", exact=True).click()
        return page

    def judge(self, page, name):
        """No complaint of the browser or of axe-core, nothing wider than the screen."""
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        self.assertEqual(wide, 0, f"{name} is wider than the screen")
        if SCREENSHOTS:
            page.screenshot(path=f"{SCREENSHOTS}/{name}.png", full_page=True)
        found = [(v["id"], v["impact"], [n["html"][:120] for n in v["nodes"]]) for v in Axe().run(page).response["violations"]]
        self.assertEqual(found, [], name)
        self.assertEqual(self.complaints, [], name)

    def judge_the_dashboard(self, name):
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                page = self.open("/dashboard", width, scheme)
                page.get_by_text("Live.").wait_for()
                self.work(3)
                page.wait_for_timeout(4000)
                for summary in page.locator("summary").all():
                    summary.click()
                self.judge(page, f"{name}-{width}-{scheme}")

    def places(self):
        """The ranks of the picture of hosts, and the rows of its table."""
        page = self.open("/dashboard")
        page.get_by_text("Live.").wait_for()
        page.locator("#places-table > summary").click()
        page.locator("#places-table caption").wait_for()  # it is made after the click
        return page.locator("#places li li").all_inner_texts(), page.locator("#places-table tbody tr").count(), page


class Stages(Browser):
    OPTIONS = ("--pp", 2, "--ep", 2)

    def test_stages_are_shown_with_their_ranks(self):
        ranks, rows, page = self.places()
        self.assertEqual((len(ranks), rows), (4, 4))
        self.assertEqual(page.locator("#places ul").evaluate_all("lists => lists.map((list) => list.getAttribute('aria-label'))"),
                         ["Stage 0 on host 0", "Stage 1 on host 0"])
        page.locator("#lives-text", has_text="All 4 ranks, on one host, were seen alive").wait_for()
        self.judge_the_dashboard("stages")


class SharedContexts(Browser):
    OPTIONS = ("--cp", 2, "--dp", 2)

    def test_ranks_that_share_a_context_are_shown_as_such(self):
        ranks, rows, _ = self.places()
        self.assertEqual(rows, 4)
        self.assertEqual(sum(text.endswith("context 1") for text in ranks), 2)
        self.judge_the_dashboard("contexts")


class GenerationServers(Browser):
    FILE = """
port: 0
max_seq_len: 1024
context_servers: {num_instances: 2}
generation_servers: {num_instances: 2, tensor_parallel_size: 2, enable_attention_dp: true, router: {type: load_balancing}}
"""

    def test_one_of_them_is_chosen_by_the_keyboard(self):
        page = self.open("/dashboard")
        page.get_by_text("Live.").wait_for()
        select = page.get_by_label("Generation server")
        self.assertEqual(select.locator("option").all_inner_texts(), ["0", "1"])
        with page.expect_response(lambda response: response.url.endswith("/dashboard/data?generation=1")) as answer:
            select.focus()
            page.keyboard.press("ArrowDown")
        self.assertEqual(answer.value.json()["generation_server"], 1)
        page.wait_for_timeout(1500)
        self.assertEqual(select.input_value(), "1")
        self.judge(page, "generations-chosen")

    def test_they_are_shown_at_all_widths_and_colours(self):
        self.judge_the_dashboard("generations")


class Pages(Browser):
    OPTIONS = ("--ep", 8, "--num-slots", 80, "--rebalance", "repair")

    def test_the_dashboard_at_all_widths_and_colours(self):
        self.judge_the_dashboard("dashboard")

    def test_the_dashboard_has_a_table_for_every_picture(self):
        page = self.open("/dashboard")
        page.get_by_text("Live.").wait_for()
        page.locator("#experts-text", has_text="of 64 experts").wait_for()
        for name in ("time", "spread", "ranks", "experts", "slots", "replicas", "moves", "pairs", "levels", "hosts", "places"):
            page.locator(f"#{name}-table > summary").click()
            caption = page.locator(f"#{name}-table table caption")
            caption.wait_for()  # it is made after the click
            self.assertEqual(caption.count(), 1, name)
        self.assertGreater(page.locator("#ranks-table td").count(), 8)
        ranks = page.locator("#ranks-table td").all_inner_texts()
        page.locator("#projection").select_option("contiguous")
        self.assertNotEqual(page.locator("#ranks-table td").all_inner_texts(), ranks)

    def test_a_saved_page_shows_its_figures_without_a_server(self):
        page = self.open("/dashboard")
        page.locator("#experts-text", has_text="of 64 experts").wait_for()
        with page.expect_download() as download:
            page.get_by_role("button", name="Page (HTML)").click()
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/saved.html"
            download.value.save_as(path)
            saved = page.context.new_page()
            asked = []
            saved.on("request", lambda request: asked.append(request.url))
            saved.goto("file://" + path)
            saved.get_by_text("As it was at").wait_for()
            self.assertIn("of 64 experts", saved.locator("#experts-text").inner_text())
            self.assertEqual([url for url in asked if not url.startswith(("file:", "data:"))], [])

    def test_every_control_is_reached_by_the_keyboard(self):
        for path in ("/dashboard", "/"):
            page = self.open(path)
            page.wait_for_timeout(1000)
            wanted = page.evaluate("""[...document.querySelectorAll('a[href], button, select, input, textarea, summary')]
                .filter((e) => e.checkVisibility() && !e.disabled).length""")
            reached = set()
            page.evaluate("document.activeElement.blur()")
            for _ in range(3 * wanted):
                page.keyboard.press("Tab")
                reached.add(page.evaluate("""[...document.querySelectorAll('a[href], button, select, input, textarea, summary')]
                    .indexOf(document.activeElement)"""))
            self.assertEqual(len(reached - {-1}), wanted, path)

    def test_a_wrong_key_is_asked_for_again(self):
        page = self.open("/")
        page.get_by_role("heading", name="Chat with").wait_for()
        page.evaluate("sessionStorage.setItem('wideload-api-key', 'another key')")
        page.reload()
        page.get_by_text("This key is not valid here.").wait_for()

    def test_a_chat_streams_stops_and_shows_markup_as_text(self):
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                page = self.open("/", width, scheme)
                page.locator("summary").click()
                page.get_by_label("System prompt").fill("You are <b>short</b>.")
                page.get_by_label("Most tokens").fill("24")
                page.get_by_label("Message").fill("<img src=x onerror=alert(1)> Who are you?")
                page.get_by_role("button", name="Send").click()
                page.locator("#status", has_text="nswered").or_(page.locator("#status", has_text="Ended")).wait_for()
                self.assertIn("<img", page.locator("article.mine .text").inner_text())
                self.assertEqual(page.locator("#log img").count(), 0)
                self.assertNotEqual(page.locator("article.model .text").inner_text(), "")
                self.judge(page, f"chat-{width}-{scheme}")
        page.get_by_label("Most tokens").fill("1900")
        page.get_by_label("Message").fill("Tell me a long story.")
        page.get_by_role("button", name="Send").click()
        page.get_by_role("button", name="Stop").click()
        page.locator("#status", has_text="Stopped.").or_(page.locator("#status", has_text="nswered")).wait_for()
        self.server.wait_until(lambda: json.loads(self.server.ask(
            "GET", "/dashboard/data", headers={"Authorization": "Bearer " + KEY})[2])["requests"]["running"] == 0, "it runs on")


if __name__ == "__main__":
    unittest.main()

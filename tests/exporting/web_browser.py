"""A real browser without a screen, and a web server for one folder, for tests of the web page."""

import contextlib
import functools
import http.server
import importlib.util
import shutil
import threading

from neural_midi_synth.exporting.web_page import PAGE

ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""Headers with which a page may share memory between its threads."""

# As root in a container there is no sandbox, and nothing is to be asked of the vendor's servers.
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def _browser():
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next(filter(None, map(shutil.which, names)), None)


def why_not():
    """What is missing to test the page, or None."""
    if not (PAGE / "index.html").is_file():
        return "the web page is not built (make web, with Node.js 20)"
    if _browser() is None:
        return "there is no Chromium"
    if importlib.util.find_spec("playwright") is None:
        return "there is no playwright"
    return None


@contextlib.contextmanager
def chromium():
    """Starts it, and yields Playwright's browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_browser(), args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments, headers, **others):
        self.more_headers = headers
        super().__init__(*arguments, **others)

    def end_headers(self):
        for name, value in self.more_headers.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *arguments):
        """Says nothing."""


@contextlib.contextmanager
def serve(folder, headers=None):
    """Serves a folder, and yields its address."""
    handler = functools.partial(_Handler, directory=str(folder), headers=headers or {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()

"""Takes the screenshots of the web page in docs/images, with the built-in checkpoint, in a real browser.

python docs/screenshots.py            (needs gradio, selenium, chromium, chromium-driver and a Chinese font)
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

import browser  # noqa: E402  the tests' own
from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor, default_checkpoint  # noqa: E402
from wallaroo_hf.web.app import launch  # noqa: E402
from wallaroo_hf.web.app_engine import Engine  # noqa: E402


def main() -> None:
    """Opens the page and photographs drawing, editing and chatting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=HERE / "images", help="folder to write to (default: docs/images)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the drawings (default: 1)")
    arguments = parser.parse_args()
    if browser.missing():
        sys.exit(f"No screenshots: {browser.missing()}.")
    folder = default_checkpoint()
    model = WallarooForConditionalGeneration.from_pretrained(folder).eval()
    with tempfile.TemporaryDirectory() as pictures:
        engine = Engine(model, WallarooProcessor.from_pretrained(folder), "built-in checkpoint", Path(pictures))
        served, address = launch(engine, "127.0.0.1", None, open_browser=False)
        arguments.output.mkdir(parents=True, exist_ok=True)
        with browser.open_page(address, 1280, 1010) as page:
            _draw(page, arguments.seed)
            _save(page, arguments.output / "app-draw.png")
            _edit(page, arguments.seed)
            _save(page, arguments.output / "app-edit.png")
            _chat(page)
            _save(page, arguments.output / "app-chat.png")
        served.close()


def _draw(page: browser.Page, seed: int) -> None:
    page.write("#prompt textarea", "a red heart and a blue square")
    page.click("#fresh input")
    page.write("#seed input", str(seed))
    page.driver.execute_script(
        "const bar = document.querySelector('#count input[type=range]'); bar.value = 4;"
        "bar.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    page.click("#draw")
    page.wait(lambda: len(page.all(".stage figure a[download]")) == 4, "four pictures")


def _edit(page: browser.Page, seed: int) -> None:
    page.click("#to-edit")
    page.find("#source img")
    page.write("#instruction textarea", "make the background white")
    page.click("#edit")
    page.wait(lambda: "Done in" in page.find("#edited").text, "the edit")


def _chat(page: browser.Page) -> None:
    page.driver.find_elements("css selector", "#language label")[1].click()
    page.wait(lambda: page.find("#tab-chat-button").text == "聊天", "Chinese")
    page.click("#tab-chat-button")
    page.write("#say textarea", "画一个红色的圆形\ue007")
    page.find("#chatbot .bot")
    page.wait(lambda: page.find("#say textarea").is_enabled(), "the end of the answer")


def _save(page: browser.Page, path: Path) -> None:
    page.driver.execute_script("window.scrollTo(0, 0); document.activeElement.blur()")
    time.sleep(1.5)  # images and animations settle
    page.driver.save_screenshot(str(path))


if __name__ == "__main__":
    main()

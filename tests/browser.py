"""A real browser, without a window: Chromium driven by selenium."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


def missing() -> str | None:
    """What is needed for a browser and not there, or None."""
    if importlib.util.find_spec("selenium") is None:
        return "selenium is not installed"
    if importlib.util.find_spec("gradio") is None:
        return "gradio is not installed"
    return None if CHROMIUM and DRIVER else "chromium and chromedriver (Debian: chromium-driver) are not installed"


class Page:
    """A page in the browser, and what a person does on it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def find(self, css: str) -> Any:
        """The first visible element, as soon as there is one."""
        return self.wait(lambda: next((e for e in self.all(css) if e.is_displayed()), None), css)

    def all(self, css: str) -> list[Any]:
        """All elements."""
        return self.driver.find_elements("css selector", css)

    def click(self, css: str) -> None:
        """Clicks the first visible element."""
        element = self.find(css)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        self.wait(lambda: _clicked(element), f"a click on {css}")

    def drag(self, element: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Draws a line with the mouse, between points in parts of an element's size from its middle."""
        from selenium.webdriver import ActionChains

        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        width, height = element.size["width"], element.size["height"]
        (left, top), (right, bottom) = ((round(x * width), round(y * height)) for x, y in (start, end))
        chain = ActionChains(self.driver).move_to_element_with_offset(element, left, top).click_and_hold()
        for part in range(1, 6):
            step = part / 5
            place = round(left + step * (right - left)), round(top + step * (bottom - top))
            chain = chain.move_to_element_with_offset(element, *place)
        chain.release().perform()

    def tab(self, number: int) -> None:
        """Opens a tab, counted from 0."""
        self.wait(lambda: len([e for e in self.all("button[role=tab]") if e.is_displayed()]) > number, "tabs")
        tabs = [e for e in self.all("button[role=tab]") if e.is_displayed()]
        self.wait(lambda: _clicked(tabs[number]), f"tab {number}")

    def write(self, css: str, text: str) -> None:
        """Replaces what a field holds."""
        field = self.find(css)
        field.send_keys("\ue009a\ue000\ue003")  # control + a, release, backspace
        field.send_keys(text)

    def wait(self, look: Callable[[], Any], what: str, seconds: float = 600) -> Any:
        """Looks again and again until there is something."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(_stale()):
                found = look()
                if found:
                    return found
            time.sleep(0.05)
        raise AssertionError(
            f"{what} did not appear in {seconds} s: {self.driver.find_element('css selector', 'body').text[-800:]}"
        )

    def requests(self) -> list[str]:
        """Addresses of everything that the page has loaded."""
        entries = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        return list(self.driver.execute_script(entries))


def _stale() -> type[Exception]:
    from selenium.common.exceptions import WebDriverException

    return WebDriverException


def _clicked(element: Any) -> bool:
    element.click()
    return True


@contextlib.contextmanager
def open_page(
    url: str, width: int = 1280, height: int = 900, language: str = "en", scale: float = 1
) -> Iterator[Page]:
    """Opens a page in a browser of its own.

    Args:
        scale: device pixels per pixel, for sharp screenshots.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    profile = tempfile.mkdtemp(prefix="wallaroo-browser-")
    options = Options()
    options.binary_location = str(CHROMIUM)
    flags = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]
    flags += ["disable-component-update", "disable-sync", "disable-dev-shm-usage", "hide-scrollbars"]
    flags += [f"user-data-dir={profile}", f"window-size={width},{height}", f"lang={language}"]
    for flag in [*flags, f"force-device-scale-factor={scale}"]:
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"intl.accept_languages": language})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        driver.set_page_load_timeout(120)
        driver.get(url)
        yield Page(driver)
    finally:
        driver.quit()
        shutil.rmtree(Path(profile), ignore_errors=True)

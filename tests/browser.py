"""Chromium without a window, for tests of pages."""

import shutil
import time

import pytest


def browser(*arguments):
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("no chromium and chromedriver on this machine")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", *arguments):
        options.add_argument(argument)
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def sized(page, width, scheme="light", height=900):
    """Sets the size of the window and the colour scheme."""
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )


def until(page, script, *arguments, seconds=60):
    """The value of a script as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := page.execute_script(script, *arguments)):
        assert time.monotonic() < deadline, f"not within {seconds} s: {script}"
        time.sleep(0.05)
    return found

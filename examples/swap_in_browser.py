"""Swap the last pick of a plan on its review page.

Usage: python examples/swap_in_browser.py FOLDER WHY

In Chromium, by playwright (`pip install playwright`, `apt-get install chromium`); where no browser
can be started it says so and sends what the page would send.
"""

import os
import re
import shutil
import subprocess
import sys

import httpx

from pertwise import Plan


def in_browser(address: str, out: str, why: str) -> str:
    """Who came in for `out`: the first name that the page offers."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    root = hasattr(os, "geteuid") and not os.geteuid()  # as root, Chromium has no sandbox
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"] * root)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.get_by_role("button", name=f"Swap {out}").click()
        page.locator("#found input").first.click()
        page.locator("#effect p", has_text="Expected information").wait_for()
        new = page.locator("#found input:checked").get_attribute("value")
        page.get_by_label("Why (needed)").fill(why)
        page.get_by_role("button", name="Save").click()
        page.locator(f"button.gene[data-gene='{new}']").wait_for()
        browser.close()
    return str(new)


def by_address(address: str, out: str, why: str) -> str:
    """The same by the requests that the page sends."""
    headers = {"Origin": address.rsplit("/", 2)[0]}
    state = httpx.get(f"{address}api/state", timeout=60).json()
    offered = httpx.get(f"{address}api/candidates", params={"instead": out}, timeout=60).json()
    new = str(offered["rows"][0]["gene"])
    change = {"do": "replace", "gene": out, "new": new, "by": "A. Person", "why": why}
    change["version"] = state["version"]
    httpx.post(f"{address}api/change", json=change, headers=headers, timeout=60).raise_for_status()
    return new


def main(folder: str, why: str) -> None:
    """Serve the plan, swap its last pick, close the page, look at the plan."""
    out = Plan.load(folder).genes[-1]
    server = subprocess.Popen(
        ["pertwise", "review", folder, "--no-browser", "--by", "A. Person"],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        told = f"{server.stdout.readline()}{server.stdout.readline()}"
        address = re.search(r"http://\S+/", told)[0]
        try:
            new, how = in_browser(address, out, why), "in Chromium"
        except Exception as error:
            print(f"the browser was left out: {str(error).splitlines()[0]}")
            new, how = by_address(address, out, why), "by the address of the page"
    finally:
        server.terminate()
        server.wait(timeout=60)
    after = Plan.load(folder)
    if new not in after.genes or out in after.genes:
        raise SystemExit(f"the swap of {out} for {new} is not in the plan")
    print(f"swapped {out} for {new} {how}: {after.decisions[-1].why} ({after.decisions[-1].by})")


if __name__ == "__main__":
    main(*sys.argv[1:])

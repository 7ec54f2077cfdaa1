"""Draws docs/live.png from what a terminal shows of a running search.

    tmux new-session -d -s live -x 100 -y 20 "python -m search run rnn --time-budget 15m"
    tmux capture-pane -e -p -t live | python -m docs.live "python -m search run rnn --time-budget 15m"

It needs chromium.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).with_name("live.png")
#: Pixels of the window of the browser, whose background is cut off.
WINDOW = (1280, 800)


def draw(screen: str, title: str) -> None:
    """Draws a screen with its colours, from the line with the best value on.

    Args:
        screen: its lines with escape sequences.
        title: of the window.
    """
    from PIL import Image, ImageChops

    lines = Text.from_ansi(screen).split("\n")
    first = max(place for place, line in enumerate(lines) if line.plain.startswith("best "))
    text = Text("\n").join(lines[first:])
    text.rstrip()
    console = Console(record=True, width=max(line.cell_len for line in text.split("\n")), file=io.StringIO())
    console.print(text)
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder, "live.svg"), Path(folder, "live.png")
        console.save_svg(str(page), title=title)
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={WINDOW[0]},{WINDOW[1]}"]
        chromium = shutil.which("chromium") or sys.exit("docs.live: needs chromium")
        subprocess.run([chromium, *options, f"--screenshot={shot}", page.as_uri()], check=True, capture_output=True)
        picture = Image.open(shot).convert("RGB")
        empty = Image.new("RGB", picture.size, picture.getpixel((0, picture.height - 1)))
        picture = picture.crop(ImageChops.difference(picture, empty).getbbox())
        picture.quantize(64).save(PICTURE, optimize=True)


if __name__ == "__main__":
    draw(sys.stdin.read(), sys.argv[1])

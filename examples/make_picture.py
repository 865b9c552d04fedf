"""Draw `docs/score.svg`: what `pfd-iqa score -r examples` prints, as it looks on a terminal.

python examples/make_picture.py
"""

import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
WIDTH = 100


def main() -> None:
    """Run the command and write the picture."""
    command = ["-m", "pfd_iqa_cli", "score", "--recursive", "examples"]
    printed = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(WIDTH)},
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        check=True,
    ).stdout
    console = Console(record=True, width=WIDTH, file=StringIO())
    console.print(Text("$ pfd-iqa score -r examples", "bold"))
    console.print(Text.from_ansi(printed))
    picture = console.export_svg(title="pfd-iqa", unique_id="score")
    # Without the web font: the picture must not need a network.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    target = ROOT / "docs" / "score.svg"
    target.parent.mkdir(exist_ok=True)
    target.write_text(picture, encoding="utf-8")
    print(f"written to {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

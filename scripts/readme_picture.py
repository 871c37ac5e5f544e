"""Draw the picture of the README, with its caption, from the store of ``runner sweep``.

usage: python scripts/readme_picture.py [STORE]
"""

from __future__ import annotations

import sys
from pathlib import Path

import runner

PICTURE = Path(__file__).resolve().parents[1] / ".github" / "phase.svg"


def main(path: str) -> None:
    caption = runner.load(path).phase().save(PICTURE, inches=9)
    print(f"{PICTURE}\n{caption.read_text()}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "outputs/default")

"""Draws Snakemake's graph of the workflow's rules in README.md (`make rulegraph`)."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCK = re.compile(r"(?<=```mermaid\n).*?(?=```)", re.DOTALL)


def rulegraph():
    """Return the graph in the Mermaid language, without colours."""
    command = [sys.executable, "-m", "snakemake", "--quiet", "all", "--rulegraph", "mermaid-js"]
    done = subprocess.run(
        command, cwd=README.parent, stdout=subprocess.PIPE, text=True, check=True
    )
    names, arrows = {}, []
    for line in done.stdout.splitlines():
        if node := re.fullmatch(r"\s*(id\d+)\[(\w+)\]", line):
            names[node[1]] = node[2]
        elif arrow := re.fullmatch(r"\s*(id\d+) --> (id\d+)", line):
            arrows.append((arrow[1], arrow[2]))
    drawn = sorted(f"    {names[a]} --> {names[b]}" for a, b in arrows if names[b] != "all")
    return "\n".join(["flowchart LR", *drawn, ""])


def main():
    text = README.read_text(encoding="utf-8")
    README.write_text(BLOCK.sub(lambda _: rulegraph(), text, count=1), encoding="utf-8")


if __name__ == "__main__":
    main()

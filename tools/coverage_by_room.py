"""Prints the share of lines and branches that tests run, by room: `python tools/coverage_by_room.py coverage.json`."""

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path, PurePath

COUNTS = ("covered_lines", "num_statements", "covered_branches", "num_branches")


def count_by_room(files: dict[str, dict[str, dict[str, int]]]) -> dict[str, Counter[str]]:
    """Return the counts of each room of tune_cure/; modules outside of the rooms count as `(top level)`."""
    rooms: dict[str, Counter[str]] = defaultdict(Counter)
    for name, file in files.items():
        parts = PurePath(name).parts
        if parts[0] == "tune_cure":
            room = parts[1] if len(parts) > 2 else "(top level)"
            rooms[room].update({count: file["summary"][count] for count in COUNTS})
    return dict(sorted(rooms.items()))


def percent(part: int, whole: int) -> str:
    """Return a share as text; `-` where there is nothing to share."""
    return f"{100 * part / whole:.1f}%" if whole else "-"


def main() -> None:
    """Print the table."""
    rooms = count_by_room(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["files"])
    rooms["all"] = sum(rooms.values(), Counter[str]())
    print(f"{'room':<14}{'lines':>8}{'run':>8}{'branches':>10}{'taken':>8}")
    for room, counts in rooms.items():
        lines = percent(counts["covered_lines"], counts["num_statements"])
        branches = percent(counts["covered_branches"], counts["num_branches"])
        print(f"{room:<14}{counts['num_statements']:>8}{lines:>8}{counts['num_branches']:>10}{branches:>8}")


if __name__ == "__main__":
    main()

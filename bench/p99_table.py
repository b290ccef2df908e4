"""Make the table of docs/routing.md of what ``lora-router simulate --json`` prints.

The p99 of the time to first token, in seconds, by scenario and algorithm: ``make bench-routing``.
"""

import json
import sys


def main() -> None:
    """Read standard input, print Markdown."""
    scenarios = json.load(sys.stdin)["scenarios"]
    algorithms = list(next(iter(scenarios.values())))
    print(f"| scenario | {' | '.join(f'`{name}`' for name in algorithms)} |")
    print("| --- |" + " ---: |" * len(algorithms))
    for scenario, found in scenarios.items():
        figures = [found[name]["ttft"]["p99"] for name in algorithms]
        least = min(figures)
        cells = [f"**{figure:.2f}**" if figure == least else f"{figure:.2f}" for figure in figures]
        print(f"| `{scenario}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

"""How well text was read: edit distance to the truth."""

from __future__ import annotations


def edit_distance(left: str, right: str) -> int:
    """Levenshtein's distance: the fewest insertions, deletions and replacements of single characters. O(len × len)."""
    above = list(range(len(right) + 1))
    for row, a in enumerate(left, 1):
        current = [row]
        for column, b in enumerate(right, 1):
            current.append(min(above[column] + 1, current[-1] + 1, above[column - 1] + (a != b)))
        above = current
    return above[-1]


def character_accuracy(pairs: list[tuple[str, str]]) -> float:
    """Of (truth, read) pairs together: 1 - distance / characters of truth, spaces and line breaks included; not below 0."""
    characters = sum(len(truth) for truth, _ in pairs)
    if characters == 0:
        return 1.0
    wrong = sum(edit_distance(truth, read) for truth, read in pairs)
    return max(0.0, 1 - wrong / characters)

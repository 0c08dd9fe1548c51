"""How answers are scored. Pure functions from two texts to a number from 0 to 1."""

import re
from collections.abc import Callable, Sequence

from espalier_eval.models import Scorer

# Letters and digits of any script. Chinese and Japanese are written without spaces: there each character is a word.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+"
)


def rouge_l(reference: str, answer: str) -> float:
    """F-measure of the longest common subsequence of words (ROUGE-L, Lin 2004), as the package rouge-score gives it."""
    expected, given = words(reference), words(answer)
    common = longest_common_subsequence(expected, given)
    if common == 0:
        return 0.0
    precision, recall = common / len(given), common / len(expected)
    return 2 * precision * recall / (precision + recall)


def exact_match(reference: str, answer: str) -> float:
    """1 when the texts are equal but for white space at their ends."""
    return float(reference.strip() == answer.strip())


def words(text: str) -> list[str]:
    """Lower-cased runs of letters and digits."""
    return _WORD.findall(text.lower())


def longest_common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest sequence that both contain in order.

    Bit-parallel (Hyyrö 2004): one row of the table is one integer, so 10,000 words on both sides take a few hundredths
    of a second instead of half a minute.
    """
    places: dict[str, int] = {}
    for index, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << index
    full = (1 << len(left)) - 1
    row = full
    for word in right:
        matches = row & places.get(word, 0)
        row = (row + matches | row - matches) & full
    return len(left) - row.bit_count()


SCORERS: dict[Scorer, Callable[[str, str], float]] = {
    Scorer.ROUGE_L: rouge_l,
    Scorer.EXACT_MATCH: exact_match,
}

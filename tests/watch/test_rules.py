"""Rules as people write them."""

import pytest

from classifier.errors import ConfigError
from classifier.watch.alerts import AlertState
from classifier.watch.rules import Condition, Rule, parse_rule

CLASSES = ("cat", "dog house", "a > b", "not sure", 'the "red"', "wait for 2s")
WHOLE = {"hold_seconds": 2.0, "until": Condition("<", 0.7), "every_seconds": 60.0}


@pytest.mark.parametrize(
    ("text", "index", "begin", "more"),
    [
        ("cat > 0.9", 0, Condition(">", 0.9), {}),
        ("cat>=90%", 0, Condition(">=", 0.9), {}),
        ("  dog house <.1 for 500ms", 1, Condition("<", 0.1), {"hold_seconds": 0.5}),
        ('"a > b" > 0.5 every 2min', 2, Condition(">", 0.5), {"every_seconds": 120.0}),
        (r'"the \"red\"" >= 1', 4, Condition(">=", 1.0), {}),
        ("wait for 2s > 0.5 for 1h", 5, Condition(">", 0.5), {"hold_seconds": 3600.0}),
        ("cat > 0.9 for 2s until < 0.7 every 60s", 0, Condition(">", 0.9), WHOLE),
        ("cat > 0.9 every 1min until <70% for 2s", 0, Condition(">", 0.9), WHOLE),
        ("cat < 0.2 until >= 0.2", 0, Condition("<", 0.2), {"until": Condition(">=", 0.2)}),
        ("cat >= 0.2 until < 0.2", 0, Condition(">=", 0.2), {"until": Condition("<", 0.2)}),
        ("not sure", 6, Condition(">", 0.5), {}),
        ("not sure > 80% for 5s", 6, Condition(">", 0.8), {"hold_seconds": 5.0}),
        ('"not sure" > 0.5', 3, Condition(">", 0.5), {}),
        ("unlike anything seen for 3s", 7, Condition(">", 0.5), {"hold_seconds": 3.0}),
    ],
)
def test_rules_are_read(text: str, index: int, begin: Condition, more: dict):
    assert parse_rule(text, CLASSES) == Rule(text=text, index=index, begin=begin, **more)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no class"),
        ("> 0.5", "names no class"),
        ("cat", "compares with no number"),
        ("cta > 0.5", "no class 'cta'; did you mean cat?"),
        ("elephant > 0.5", "no class 'elephant': there are cat, dog house"),
        ("cat > ", "has no number from 0 to 1 at '>'"),
        ("cat > often", "has no number from 0 to 1 at '> often'"),
        ("cat > 90", "above 1: write 90% or a fraction"),
        ("cat > 200%", "above 1"),
        ("cat > 0.9 for 2", "is not understood from 'for 2' on"),
        ("cat > 0.9 for 2 days", "is not understood from 'for 2 days' on"),
        ("cat > 0.9 for 2s for 3s", "says for twice"),
        ("cat > 0.9 until 0.7", "has no comparison after until"),
        ("cat > 0.9 until < 0.95", "has to end by until <, of at most 0.9"),
        ("cat > 0.9 until > 0.95", "has to end by until <, of at most 0.9"),
        ("cat < 0.1 until < 0.05", "has to end by until >, of at least 0.1"),
        ("cat >= 0.8 until <= 0.8", "has to end by until <, of at most 0.8"),
        ("cat > 1", "has a condition that never holds, > 1"),
        ("cat > 0.9 until < 0%", "has a condition that never holds, < 0"),
        ("cat > 0.9 \x1b[31m", "is not understood from '\\x1b[31m' on"),
        ("x" * 1000, "has more than 500 characters"),
    ],
)
def test_mistakes_are_told_in_a_sentence(text: str, said: str):
    with pytest.raises(ConfigError) as error:
        parse_rule(text, CLASSES)
    assert said in str(error.value)
    assert len(str(error.value)) < 800


@pytest.mark.parametrize(
    ("text", "values", "changes"),
    [
        ("cat > 0.5", "0 9 9 0 9", {1: "began", 3: "ended", 4: "began"}),
        ("cat > 0.5 for 2s", "9 9 0 9 9 9 9 0", {5: "began", 7: "ended"}),
        ("cat > 0.8 until < 0.3", "9 5 3 2 5 9", {0: "began", 3: "ended", 5: "began"}),
        ("cat > 0.8 every 4s", "9 0 9 0 9 0 9", {0: "began", 1: "ended", 4: "began", 5: "ended"}),
        ("cat > 0.8 every 3s", "9 0 0 0 9 0", {0: "began", 1: "ended", 4: "began", 5: "ended"}),
        ("cat > 0.8 for 2s", "9 |9 9 9 9", {3: "began"}),
        ("cat < 0.2", "9 1 9", {1: "began", 2: "ended"}),
    ],
)
def test_alerts_begin_and_end(text: str, values: str, changes: dict[int, str]):
    """Values in tenths, one a second; | is a gap before it."""
    state = AlertState(parse_rule(text, CLASSES))
    found = {}
    for second, word in enumerate(values.split()):
        change = state.update(int(word.strip("|")) / 10, float(second), is_first="|" in word)
        if change:
            found[second] = change
    assert found == changes

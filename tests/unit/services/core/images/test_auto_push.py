"""Auto-push by pattern, changed while the services run."""

from services.core.images.auto_push import AutoPush

NAME = "docker.io/team/app:dev-1"


def test_without_a_choice_the_process_setting_holds() -> None:
    """A record that nobody wrote changes nothing."""
    assert AutoPush().decides(NAME, otherwise=True)
    assert not AutoPush().decides(NAME, otherwise=False)
    assert not AutoPush(push=False).decides(NAME, otherwise=True)


def test_the_first_pattern_that_fits_decides() -> None:
    """Patterns go before the choice for all."""
    chosen = AutoPush(push=True).with_rule("*:dev-*", push=False).with_rule("docker.io/team/*", push=True)
    assert not chosen.decides(NAME, otherwise=True)
    assert chosen.decides("docker.io/team/app:1", otherwise=False)
    assert chosen.decides("docker.io/library/web:1", otherwise=False)


def test_a_rule_is_replaced_in_its_place_and_taken_out() -> None:
    """The order of rules is that in which they were first said."""
    chosen = AutoPush().with_rule("a*", push=True).with_rule("b*", push=True).with_rule("a*", push=False)
    assert [(rule.pattern, rule.push) for rule in chosen.rules] == [("a*", False), ("b*", True)]
    assert [rule.pattern for rule in chosen.with_rule("a*", push=None).rules] == ["b*"]

from lumina.errors import LuminaError, UnknownNameError


def test_an_error_reads_as_its_message_and_its_hint():
    assert str(LuminaError("no heat", hint="light the stove")) == "no heat\nhint: light the stove"
    assert str(LuminaError("no heat")) == "no heat"


def test_an_unknown_name_suggests_the_nearest_and_lists_all():
    error = UnknownNameError.among(["euler", "heun"], "hun", kind="solver")
    assert error.args == ("unknown solver 'hun'",)
    assert error.hint == "did you mean 'heun'? known: euler, heun"


def test_an_unknown_name_like_no_other_only_lists_all():
    assert UnknownNameError.among(["euler"], "zzz", kind="solver").hint == "known: euler"

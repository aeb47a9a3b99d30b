"""What goes wrong is kept; what ends the program is not."""

import pytest

from wallaroo_hf.families.attempts import Attempt


def test_what_goes_wrong_is_kept():
    with Attempt() as attempt:
        raise ValueError("so it is")
    assert str(attempt.error) == "so it is" and isinstance(attempt.error, ValueError)
    with Attempt() as attempt:
        done = 3
    assert attempt.error is None and done == 3


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_program_passes(ending):
    with pytest.raises(ending), Attempt():
        raise ending

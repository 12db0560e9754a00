"""The one error tree of the command line; `main` turns it into a sentence and an exit status.

Failure        exit 1: what went wrong, and what to do next
  Refused      the API answered with a Status that says no
  Unreachable  nothing answers where the gateway, or a member, should be
  Shut         a member that is to be left cannot be asked (leaving.py)
"""


class Failure(Exception):
    """`what` is a sentence without a full stop; `hint` says what to do next, "" when there is nothing to say."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class Refused(Failure):
    """The Status of a refusal; `code` is its HTTP status."""

    def __init__(self, what: str, hint: str = "", *, code: int) -> None:
        super().__init__(what, hint)
        self.code = code


class Unreachable(Failure):
    """No answer at all."""

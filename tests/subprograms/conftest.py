"""Settings as for the tests of rules."""

from tests.rules.conftest import quick_compilation  # noqa: F401

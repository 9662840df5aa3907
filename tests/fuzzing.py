"""How thorough the random tests are: ``PERTWISE_FUZZ=2000`` examples each; a quick look without."""

import os

from hypothesis import HealthCheck, settings

from pertwise.errors import PertwiseError

EXAMPLES = int(os.environ.get("PERTWISE_FUZZ", "40"))
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


def attempt(*calls):
    """Each gives a result or one clear line."""
    for call in calls:
        said = "nothing"
        try:
            call()
        except PertwiseError as error:
            said = str(error)
        assert "\n" not in said
        assert 0 < len(said) < 4000

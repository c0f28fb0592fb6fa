"""Where a test's own settings come from."""

from rackctl.settings import Origin, Source

GIVEN = Origin(Source.OPTION, "test")

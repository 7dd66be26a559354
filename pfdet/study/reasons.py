"""Why claims did not come out at mini scale, as far as it was found out."""

# By the runs compared and the measure.
REASONS: dict[tuple[str, str, str], str] = {}

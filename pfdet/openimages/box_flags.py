"""Bits of the attributes that Open Images annotates per box.

Their sum is a box's uint8 value in the ``flags`` columns. The module imports nothing, so that code
that needs the bits alone does not load Arrow.
"""

OCCLUDED = 1
TRUNCATED = 2
GROUP_OF = 4
DEPICTION = 8
INSIDE = 16

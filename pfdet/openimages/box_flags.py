"""What Open Images says of a box, as bits of a number.

They stand apart from the tables they are read from, so that who asks for them need not load Arrow.
"""

OCCLUDED = 1
TRUNCATED = 2
GROUP_OF = 4
DEPICTION = 8
INSIDE = 16

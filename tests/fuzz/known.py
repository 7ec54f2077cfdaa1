"""Defects that are known, and what the sequences do not try because of each.

Delete an entry to have it tried; the dictionary is empty once all of them are mended. `FUZZ_TRY=names,database` tries
these two whatever stands here, and `FUZZ_TRY=all` everything.
"""

import os

HELD_BACK: dict[str, str] = {}
for _name in os.environ.get("FUZZ_TRY", "").split(","):
    if _name == "all":
        HELD_BACK.clear()
    HELD_BACK.pop(_name, None)

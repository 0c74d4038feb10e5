"""``python -m beilun`` is ``beilun``."""

import sys

from beilun.cli import main

sys.exit(main())

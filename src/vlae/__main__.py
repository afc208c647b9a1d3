"""python -m vlae"""

import sys

from vlae.cli import main

sys.exit(main())

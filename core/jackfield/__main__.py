"""``python -m jackfield``."""

import sys

from jackfield.cli import main

sys.exit(main())

"""`python -m weightlora`, for launchers such as `accelerate launch -m weightlora train`."""

import sys

from .cli import main

sys.exit(main())

#!/usr/bin/env python
"""Django's commands, for the example shop."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    # The package itself, where it is not installed.
    sys.path.append(str(Path(__file__).resolve().parent / "src"))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)

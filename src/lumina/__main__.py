"""Runs the command as `python -m lumina`."""

from lumina.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

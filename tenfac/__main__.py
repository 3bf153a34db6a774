"""``python -m tenfac`` is the command ``tenfac``."""

from tenfac.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

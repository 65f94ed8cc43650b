"""``python -m labelguard``: the command line, where no script is on the path."""

from labelguard.cli import main

if __name__ == "__main__":
    main()

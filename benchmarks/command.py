"""The command `aurastream` by module name, for a measured process: a console script may not be on PATH."""

from aurastream.processors.commands.main import main

if __name__ == "__main__":
    main()

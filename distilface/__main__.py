"""The command, or one sentence where only the half that runs models is installed."""

import sys

from distilface.extras import check_toolkit
from distilface.settings import InputError


def main() -> None:
    """Run the command line; without the toolkit, say what it lacks and exit with code 2."""
    try:
        check_toolkit(*[word for word in sys.argv[1:2] if word.isalpha()])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    from distilface import cli

    cli.main()


if __name__ == "__main__":
    main()

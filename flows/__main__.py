"""The command `flows`, also as `python -m flows`."""

import sys


def main() -> None:
    """Run the command line; without its extra, say how to install that."""
    try:
        from flows.cli.app import run
    except KeyboardInterrupt:
        sys.exit(130)
    except ImportError as error:
        if not (error.msg or "").startswith("the command flows needs"):
            raise
        print(f"flows: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()

"""``python -m lambent`` (and so ``torchrun -m lambent``) is the command ``lambent``."""

from lambent.cli import main

if __name__ == "__main__":
    main()

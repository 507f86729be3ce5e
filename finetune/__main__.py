"""`python -m finetune`, where the command is not on the path."""

from finetune.cli import main

if __name__ == "__main__":
    main()

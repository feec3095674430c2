"""`python -m services` is `cyroid-images`."""

from services.cli import main

if __name__ == "__main__":
    main()

"""The real stack: builds its images, makes its secrets, starts and stops it with Compose."""

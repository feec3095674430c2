"""The Compose stack: builds its images, makes its secrets, starts and stops it."""

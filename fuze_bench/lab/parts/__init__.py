"""What a trial starts and watches: web site, Redis, API and workers as real processes."""

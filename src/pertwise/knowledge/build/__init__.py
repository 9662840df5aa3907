"""From source files to a knowledge folder: fetch, read, assemble."""

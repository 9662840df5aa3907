"""What is known about compounds: names, structures, targets, mechanisms."""

"""Who is better? Units, resume, tables; one module or folder a task."""

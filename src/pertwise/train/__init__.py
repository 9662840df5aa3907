"""Tuning a judge by reward: tasks as rows, rewards as pure functions, a control, evaluation.

Nothing here is imported by the rooms above; heavy packages are imported inside functions only.
"""

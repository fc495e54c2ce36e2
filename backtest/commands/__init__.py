"""The commands of main.py, their arguments read."""

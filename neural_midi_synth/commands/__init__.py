"""One module for each console script: its flags, and its words to the user. No other room defines a flag.

Imports every room; nothing imports it.
"""

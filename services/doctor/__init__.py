"""Checks of `cyroid-images doctor`: every dependency in turn, what is wrong with it, what to do."""

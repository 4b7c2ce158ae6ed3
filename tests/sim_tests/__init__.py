"""The real client in the simulated network: time limits, faults, cuts at every byte, races, random worlds, progress.

Each test takes milliseconds of real time, whatever it takes of the virtual clock, and runs the same each time.
"""

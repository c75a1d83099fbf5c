"""What plugins implement, and the frozen values that cross borders.

The text, scheduling and work contracts import no torch; ``model`` and ``attention`` do, and
are therefore imported by their full names only.
"""

"""Tables and charts: DataFrame in, HTML text or matplotlib Figure out.

Knows nothing of steps, results or runtimes: only the columns of a table. Both sides mark what no device measured.
"""

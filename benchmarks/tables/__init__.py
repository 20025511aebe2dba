"""Tables of papers, scaled down to two CPU cores: `python -m benchmarks.tables.t1` and its neighbours.

What was measured lies beside the commands, one JSON file a cell (`t1/`, ...), and the table is written from those
files alone (`t1.md`, ...). A cell that is there is not measured again, and a training that was stopped goes on, so
a table may be filled over several runs.
"""

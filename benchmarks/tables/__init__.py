<<<<<<< HEAD
"""Tables of papers, scaled down to two CPU cores: `python -m benchmarks.tables.t1` (t2, t4, t6, restoration).
=======
"""Tables of papers, scaled down to two CPU cores: `python -m benchmarks.tables.t1` (t2, t4, t9, restoration).
>>>>>>> e7d39a7a9923160b52b1c8b92774e1d21335c556

What was measured lies beside the commands, one JSON file a cell (`t1/`, ...), and the table is written from those
files alone (`t1.md`, ...). A cell that is there is not measured again, and a training that was stopped goes on, so
a table may be filled over several runs.
"""

"""Compare methods over seeds on the same model and data: the runs, paired statistics, a table and a picture."""

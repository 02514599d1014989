"""The benchmark: experiments as data, one result file a run, and what the results say."""

"""One training run as data: any model, any data set, any method, and what comes of it in a directory.

`arguments.parse` reads recipe files and arguments, `plan.prepare` checks everything that can be checked before the
model loads, and plans; `running.train` does what was planned. Training is `transformers.Trainer`'s business.
"""

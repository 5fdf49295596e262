"""Training: batches, schedules, optimizers, callbacks of `fit`, and `loop.train`, which ties them together.

Importing `loop` makes gin know all that a training can be configured with. May import `evaluation`, `instrument`,
`midi`, `files`, `errors`, `environment` and `configs`.
"""

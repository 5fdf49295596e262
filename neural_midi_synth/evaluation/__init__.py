"""How close an instrument comes to recordings: examples, measures, pictures, and the report made of them.

`examples` reads what is compared, `comparing` plays and measures it, `page` shows the result. `metrics` and
`multipitch` measure arrays of sound, `pictures` draws them; none of the room needs TensorFlow but to read data sets.
May import `instrument`, `midi`, `files`, `errors`, `environment` and `configs`.
"""

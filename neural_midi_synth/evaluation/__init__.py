"""How close an instrument comes to recordings: examples, measures, pictures, and the report made of them.

`examples` reads what is compared, `comparing` plays and measures it, `page` shows the result. `metrics`, `multipitch`
and `note_metrics` measure arrays of sound, `pictures` draws them. `renditions` finds notes that the player plays twice,
`likeness` measures instrument and player on them, `verdict` says in words what that means. None of the room needs
TensorFlow but to read data sets.
May import `instrument`, `midi`, `files`, `errors`, `environment` and `configs`.
"""

"""What the faces of a step share: the magic and the command are made here from its signature and docstring.

`face` reads a step, `binding` turns words into its arguments, `pages` writes its help, `examples` rewrites its
examples, `housekeeping` is what both faces offer beside the steps. Knows nothing of notebooks and terminals, and
nothing of what the steps do.
"""

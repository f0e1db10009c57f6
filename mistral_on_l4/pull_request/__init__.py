"""The comment of a pull request: what would change, whether it fits, how fast it will be, what it costs, what is forbidden.

Pure: reads the engine's event stream and two plan documents, renders Markdown. No network, no Pulumi.

    preview = read_events(path)                       # events.py
    before, after = read_plan(a), read_plan(b)        # plans.py
    comment = render(stack, preview, before, after)   # comment.py
"""

"""Model cards: `<family>.md` is a Jinja2 template with the family's prose, `_base.md` what all cards share.

`hf_genzoo.hub.card` renders them. Numbers are never typed here, except as a paper's own, with their source.
"""

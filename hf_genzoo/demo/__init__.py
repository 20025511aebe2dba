"""Demos in the browser: `genzoo demo`, and the same app as a Space.

All modules but `launcher`, `command_line` and `space` are also published in a Space, verbatim, where hf_genzoo is not
installed: they import the standard library, numpy, PIL, torch, diffusers, gradio and one another, nothing else.
"""

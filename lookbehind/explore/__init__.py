"""Widgets and figures for the notebooks: a folder an explorer."""

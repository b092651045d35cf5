"""Interactive figures for the notebooks: the only user of plotly, ipywidgets and anywidget."""

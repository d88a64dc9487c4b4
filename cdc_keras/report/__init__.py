"""report.html of a run, and strips of what a network looks at in image files."""

"""Tables 1 to 6 of the paper, and the controls beside them: what is trained, scored and written."""

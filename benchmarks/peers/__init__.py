"""One module per other library, run only inside that library's own virtual environment."""

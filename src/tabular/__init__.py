"""The pipeline of tables of numbers and categories."""

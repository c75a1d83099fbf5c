"""The tasks that jackfield-mini is trained for, one file a field."""

"""Models that come with Jackfield."""

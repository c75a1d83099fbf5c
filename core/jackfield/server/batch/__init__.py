"""``jackfield run-batch``: files of requests in OpenAI's batch format, and their answers."""

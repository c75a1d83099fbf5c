"""How jackfield-mini is made: data, tokenizer, training and evaluation. docs/jackfield-mini.md."""

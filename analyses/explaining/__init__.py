"""What an explanation of one sentence measures, without its words: the part that other analyses ask too."""

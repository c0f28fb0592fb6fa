"""Replace every instance of a rack by one with a new key: plan, journal, roll."""

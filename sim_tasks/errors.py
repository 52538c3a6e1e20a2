"""What is the user's to mend, as against what is a fault of ours."""

class UserError(ValueError):
    """Something that was given cannot be used: names what and where, and what was expected.

    Programs show it in one line; of every other exception they show the traceback.
    """

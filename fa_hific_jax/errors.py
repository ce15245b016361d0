"""The one exception that is the user's to mend."""


class UserError(ValueError):
    """Bad input: the message is one sentence that names the thing and the mend.

    Commands print the message alone and exit with code 2; any other exception is a bug and keeps
    its traceback.
    """

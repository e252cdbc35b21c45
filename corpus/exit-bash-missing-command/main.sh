# The last command does not exist.
no_such_command_at_all

# One line of 500,000 characters.
print("x" * 500000)

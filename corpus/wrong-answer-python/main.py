# Prints a float where an integer is asked for.
a, b = map(int, input().split())
print((a + b) / 1)

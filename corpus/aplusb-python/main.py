# Adds two numbers: the job that everybody sends first.
a, b = map(int, input().split())
print(a + b)

# Input without a final newline.
print(input()[::-1])

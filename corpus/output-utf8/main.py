# Prints text in several scripts, as UTF-8.
print("ä € 漢字 😀 שלום")

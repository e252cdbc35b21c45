# Imports what leftovers-5-leave-python may have left.
import random
import sys

print(random.__file__.startswith("/usr/lib/python"))
for name in ("usercustomize", "sitecustomize"):
    module = sys.modules.get(name)
    print(name, "LOADED FROM " + module.__file__ if module and module.__file__.startswith("/box") else "fine")

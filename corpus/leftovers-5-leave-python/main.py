# Leaves start-up files for the next Python program.
import os
import site

for where in {site.getusersitepackages(), os.path.expanduser("~"), "/tmp"}:
    os.makedirs(where, exist_ok=True)
    for name in ("usercustomize.py", "sitecustomize.py", "random.py", "left.pth"):
        with open(os.path.join(where, name), "w") as f:
            f.write("import sys; print('POISONED'); sys.stdout.flush()\n")
print("left")

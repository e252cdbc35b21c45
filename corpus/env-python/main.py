# Looks for anything of the server in environment and command lines.
import os

allowed = {"PATH", "HOME", "LANG", "TMPDIR", "LC_CTYPE"}
print("extra:", sorted(set(os.environ) - allowed))
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) != os.getpid():
        try:
            print("SEEN", pid, open(f"/proc/{pid}/cmdline", "rb").read(), open(f"/proc/{pid}/environ", "rb").read())
        except OSError as e:
            print(pid, e.strerror)

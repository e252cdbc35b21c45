# The same in Python, which ignores the signal and raises.
try:
    with open("big", "wb", buffering=0) as f:
        for _ in range(8):
            f.write(bytes(1 << 20))
    print("no limit")
except OSError as e:
    print(e.strerror)

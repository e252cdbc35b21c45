# Fills byte arrays up to 2 GiB.
blocks = []
for i in range(128):
    blocks.append(bytearray(b"x") * (16 << 20))
print("had 2 GiB")

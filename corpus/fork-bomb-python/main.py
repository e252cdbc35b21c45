# Forks 3,000 times; the limit answers EAGAIN.
import errno
import os
import time

made = 0
try:
    while made < 3000:
        if os.fork() == 0:
            time.sleep(10)
            os._exit(0)
        made += 1
except OSError as e:
    print(errno.errorcode[e.errno], made <= 64)

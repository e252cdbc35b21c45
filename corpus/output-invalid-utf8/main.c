// Prints truncated and overlong UTF-8 and a lone surrogate.
#include <stdio.h>
int main(void) { fputs("begin \xc3 \xe2\x82 \xc0\xaf \xed\xa0\x80 \xf5 end\n", stdout); }
